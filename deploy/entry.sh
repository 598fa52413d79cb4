#!/usr/bin/env bash
# Writes swarmctl of a virtual environment anew, so that Python starts without `site`: that looks for packages' .pth
# files and takes a fifth of the time of a command.  What pip wrote works as well, and an upgrade by pip brings it back.
# Usage: deploy/entry.sh VENV
set -euo pipefail
venv=$(cd "$1" && pwd)
python=$venv/bin/python
# A first line of a script has one word for the interpreter and one for its flags, in 127 bytes.
if [[ $python =~ [[:space:]] ]] || [ ${#python} -gt 120 ]; then exit 0; fi
new=$(mktemp "$venv/bin/swarmctl.XXXXXX")
"$python" -I - "$python" >"$new" <<'PYTHON'
import os
import sys
import sysconfig

from swarmd.swarmctl import main

# Where the package is, and where what pip knows of it is: two places where it is installed from a checkout.
package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(main.__file__))))
places = [*dict.fromkeys((package, sysconfig.get_path("purelib")))]
print(f"""#!{sys.argv[1]} -IS
import sys

sys.path += {places!r}
from swarmd.swarmctl.main import command

command()""")
PYTHON
chmod 0755 "$new"
mv "$new" "$venv/bin/swarmctl"
