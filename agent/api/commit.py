"""POST /commit: an image of a container; its configuration is the container's, the body's over it, then the changes."""

import msgspec
from aiohttp import web

from swarmd.agent.api import query
from swarmd.agent.api.container_config import health
from swarmd.agent.api.fields import Fields, body
from swarmd.agent.api.image_changes import changed
from swarmd.agent.api.images import given_name
from swarmd.agent.api.interface import services
from swarmd.agent.api.streams import answer
from swarmd.proto.errors import Invalid
from swarmd.runtime.committing import config_of
from swarmd.runtime.images.config import ImageConfig

# What clients send along of a container's configuration and no image says.
_OF_CONTAINERS = (
    *("ArgsEscaped", "AttachStderr", "AttachStdin", "AttachStdout", "Domainname", "Hostname", "Image", "MacAddress"),
    *("NetworkDisabled", "OpenStdin", "StdinOnce", "StopTimeout", "Tty"),
)


async def commit(request: web.Request) -> web.Response:
    engine = services(request).engine
    container, name = request.query.get("container", ""), given_name(request)
    if not container:
        raise Invalid("query parameter container is required: the container to make an image of")
    state = engine.inspect(container)
    config = merged(await body(request), config_of(state, engine.images.get(state.image_id)))
    comment = request.query.get("comment", "")
    image = await engine.commit(
        state.id,
        (str(name),) if name else (),
        changed(config, request.query.getall("changes", [])),
        author=request.query.get("author", ""),
        comment=comment,
        pause=query.flag(request, "pause", True),
    )
    told = {"comment": comment, "imageID": image.id, "imageRef": name.familiar if name else ""}
    about = {**state.config.labels, "image": state.config.image, "name": state.name}
    engine.publish("container", "commit", state.id, {**about, **told})
    return answer({"Id": image.id}, status=201)


def merged(given: object, own: ImageConfig) -> ImageConfig:
    """Docker's rules: what the body names wins, lists of names and values are joined."""
    with Fields(given or {}, unsupported=()) as fields:
        for name in _OF_CONTAINERS:
            fields.drop(name)
        entrypoint, cmd = fields.text_or_texts("Entrypoint"), fields.text_or_texts("Cmd")
        env = dict(line.partition("=")[::2] for line in (*own.env, *fields.texts("Env")))
        return msgspec.structs.replace(
            own,
            entrypoint=entrypoint or own.entrypoint,
            cmd=cmd or (() if entrypoint else own.cmd),
            env=tuple(f"{name}={value}" for name, value in env.items()),
            workdir=fields.text("WorkingDir") or own.workdir,
            user=fields.text("User") or own.user,
            labels=own.labels | fields.mapping("Labels"),
            exposed_ports=tuple(dict.fromkeys((*own.exposed_ports, *fields.raw("ExposedPorts")))),
            health=health(fields) if fields.has("Healthcheck") else own.health,
            stop_signal=fields.text("StopSignal") or own.stop_signal,
            volumes=tuple(dict.fromkeys((*own.volumes, *fields.raw("Volumes")))),
            onbuild=(*own.onbuild, *fields.texts("OnBuild")),
            shell=fields.texts("Shell") or own.shell,
        )
