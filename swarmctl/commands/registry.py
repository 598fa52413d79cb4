"""swarmctl image pull, image push, search, login, logout."""

from __future__ import annotations

import sys

from swarmd.swarmctl import output, values
from swarmd.swarmctl.client import Client, Refusal, path_of
from swarmd.swarmctl.filters import filters
from swarmd.swarmctl.parser import Args, Parser
from swarmd.swarmctl.references import in_full, platform, split, tagged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

_FOUND = output.Table({"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"})
_DESCRIPTION = 45  # characters
_ABSENT = {
    "--disable-content-trust": "images are checked by their digests; there is no content trust to disable",
}


def add_pull(parser: Parser) -> None:
    parser.switch("-a", "--all-tags", help="all tags of the repository")
    parser.text("--nodes", metavar="all|NODE,...", help="onto nodes of the cluster, from one another if they can")
    _flags(parser)
    parser.argument("image", "NAME[:TAG|@DIGEST]")
    parser.set_defaults(run=pull)


def add_push(parser: Parser) -> None:
    parser.switch("-a", "--all-tags", help="all tags of the repository that are here")
    parser.switch("--cluster", help="to the nodes of the cluster instead of a registry")
    parser.text("--copies", type=values.count, default=0, metavar="N", help="with --cluster: to have N nodes hold it")
    _flags(parser)
    parser.argument("image", "NAME[:TAG]")
    parser.set_defaults(run=push)


def _flags(parser: Parser) -> None:
    parser.text("--platform", help="os/architecture[/variant], of an image for several")
    parser.switch("-q", "--quiet", help="print the name only")
    parser.lacks(_ABSENT)


def pull(client: Client, args: Args) -> None:
    if args.all_tags and split(args.image)[1]:
        raise Refusal(f"{args.image} names one image: leave its tag out, or --all-tags")
    if args.nodes:
        if args.all_tags or args.platform:
            raise Refusal("--nodes is for one image, and each node's own platform: leave --all-tags and --platform out")
        _distribute(client, args, tagged(args.image), nodes=args.nodes)
        return
    if not args.all_tags and not split(args.image)[1] and not args.quiet:
        print("Using default tag: latest", flush=True)
    name = args.image if args.all_tags else tagged(args.image)
    fetch(client, name, args.platform, quiet=args.quiet)
    print(in_full(args.image).removesuffix(":latest") if args.all_tags else in_full(name))


def fetch(client: Client, name: str, platform: str | None, *, quiet: bool, out: IO[str] | None = None) -> None:
    """Have the daemon pull an image, with this user's login at its registry."""
    from swarmd.swarmctl.credentials import Logins
    from swarmd.swarmctl.layers import Screen

    headers = Logins().header(name)
    Screen(out, quiet=quiet).follow(client.follow("/images/create", headers, fromImage=name, platform=platform or None))


def push(client: Client, args: Args) -> None:
    repository, tag = split(args.image)
    if args.cluster:
        if args.all_tags or args.platform:
            raise Refusal("--cluster is for one image as it is: leave --all-tags and --platform out")
        here = client.get(f"/images/{path_of(args.image)}/json")["Id"]
        name = args.image if "@" in args.image else f"{tagged(args.image)}@{here}"
        _distribute(client, args, name, copies=args.copies or None)
        return
    if args.copies:
        raise Refusal("--copies says how many nodes of the cluster are to hold it: use it with --cluster")
    if args.all_tags and tag:
        raise Refusal(f"{args.image} names one image: leave its tag out, or --all-tags")
    if not args.all_tags and not tag and not args.quiet:
        print("Using default tag: latest", flush=True)
    send(client, repository if args.all_tags else tagged(args.image), platform(args.platform), quiet=args.quiet)
    if args.quiet:
        print(in_full(args.image).removesuffix(":latest") if args.all_tags else in_full(tagged(args.image)))


def send(
    client: Client, name: str, platform: dict[str, Any] | None = None, *, quiet: bool, out: IO[str] | None = None
) -> None:
    """Have the daemon push an image, or all of a repository whose name has no tag, with this user's login."""
    from swarmd.swarmctl.credentials import Logins
    from swarmd.swarmctl.layers import Screen

    repository, tag = split(name)
    headers = Logins().header(repository)
    stream = client.follow(f"/images/{path_of(repository)}/push", headers, tag=tag or None, platform=platform)
    Screen(out, quiet=quiet).follow(stream)


def _distribute(client: Client, args: Args, name: str, **query: object) -> None:
    """Have nodes get an image; without a digest the one that its name stands for in the cluster."""
    from swarmd.swarmctl.credentials import Logins
    from swarmd.swarmctl.layers import Screen

    stream = client.follow(f"/swarmd/images/{path_of(name)}/fetch", Logins().header(name), **query)
    Screen(quiet=args.quiet).follow(stream)


def add_search(parser: Parser) -> None:
    parser.several("-f", "--filter", metavar="KEY=VALUE", help="is-official, is-automated, stars")
    parser.text("--format", metavar="TEMPLATE")
    parser.text("--limit", type=int, default=0, metavar="N", help="at most so many (default: 25)")
    parser.switch("--no-trunc", help="descriptions in full")
    parser.argument("term", "[HOST[:PORT]/]TERM")
    parser.set_defaults(run=search)


def search(client: Client, args: Args) -> None:
    from swarmd.swarmctl.credentials import Logins

    headers = Logins().header(args.term)
    found = client.get(
        "/images/search", headers, term=args.term, limit=args.limit or None, filters=filters(args.filter)
    )
    rows = [
        {
            "Name": one["name"],
            "Description": _shortened(one.get("description") or "", args.no_trunc),
            "StarCount": str(one.get("star_count", 0)),
            "IsOfficial": "[OK]" if one.get("is_official") else "",
            "IsAutomated": "[OK]" if one.get("is_automated") else "",
        }
        for one in found
    ]
    _FOUND.show(rows, args)


def _shortened(text: str, in_full: bool) -> str:
    line = " ".join(text.split())
    return line if in_full or len(line) <= _DESCRIPTION else f"{line[: _DESCRIPTION - 1]}…"


# ---------------------------------------------------------------- logins


def add_login(parser: Parser) -> None:
    parser.text("-u", "--username", default="", metavar="NAME")
    parser.text("-p", "--password", default="", metavar="WORD", help="seen by whoever sees this command: better ...")
    parser.switch("--password-stdin", help="... from standard input")
    parser.argument("server", "SERVER", "?", default="")
    parser.set_defaults(run=login)


def add_logout(parser: Parser) -> None:
    parser.argument("server", "SERVER", "?", default="")
    parser.set_defaults(run=logout, local=True)


def login(client: Client, args: Args) -> None:
    """Try the login at the daemon; keep it, or the token that the registry gave for it, if it is good."""
    from swarmd.swarmctl.credentials import Logins, key_of

    logins, key = Logins(), key_of(args.server)
    known = {} if args.username or args.password else logins.get(args.server)
    login = known or _typed(args, key)
    answer = client.post("/auth", login | {"serveraddress": key}) or {}
    if token := answer.get("IdentityToken"):
        login = {"username": login.get("username", ""), "identitytoken": token}
    if not known:
        print(f"The login is kept {logins.put(args.server, login)}.", file=sys.stderr)
    print(answer.get("Status") or "Login Succeeded")


def _typed(args: Args, key: str) -> dict[str, str]:
    if args.password_stdin and args.password:
        raise Refusal("--password and --password-stdin both give a password: use one of them")
    if args.password_stdin and not args.username:
        raise Refusal("--password-stdin needs --username too")
    name, password = args.username, args.password
    if args.password_stdin:
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    elif password:
        print("WARNING: others see a --password in the list of processes: use --password-stdin", file=sys.stderr)
    if not name or not password:
        if not sys.stdin.isatty():
            raise Refusal(f"no login for {key}: give --username and --password-stdin where there is no terminal")
        import getpass

        name = name or input("Username: ").strip()
        password = password or getpass.getpass("Password: ")
    if not name or not password:
        raise Refusal("a login needs a username and a password")
    return {"username": name, "password": password}


def logout(client: Client, args: Args) -> None:
    from swarmd.swarmctl.credentials import Logins, key_of

    had = Logins().erase(args.server)
    print(f"Removed the login at {key_of(args.server)}" if had else f"Not logged in at {key_of(args.server)}")
