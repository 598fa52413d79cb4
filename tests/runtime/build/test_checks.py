"""What is allowed in a Dockerfile and seldom meant is told, by rules that can be turned off; the rest is not."""

import pytest

from swarmd.runtime.build.dockerfile import DockerfileError, parse

FINE = """\
ARG VERSION=1
FROM --platform=$BUILDPLATFORM golang:$VERSION AS build
ARG TARGETARCH
ENV PATH=$GOPATH/bin:$PATH TOKENIZERS_PARALLELISM=1 KEYBOARD=us PUBLIC_KEY=x MONKEY_ISLAND=1
RUN echo $NOTHING_OF_OURS
COPY --from=build . ${WHERE:-/x}
FROM build AS final
WORKDIR /srv/$TARGETARCH
LABEL said='$LITERALLY' escaped=\\$SO
EXPOSE 80 8000-8010/udp
CMD ["x"]
"""


@pytest.mark.parametrize("text", [FINE.replace("COPY --from=build", "COPY"), "from a as b\nrun x\n"])
def test_what_is_usual_is_not_warned_of(text: str) -> None:
    assert parse(text).warnings == ()


@pytest.mark.parametrize(
    ("rule", "line", "text", "word"),
    [
        ("UndefinedVar", 2, "FROM scratch\nCOPY a $WHERE\n", "WHERE is not set"),
        ("UndefinedVar", 3, "FROM a\nENV VERSION=1\nLABEL v=${VERSOIN}\n", "did you mean VERSION?"),
        ("UndefinedVar", 3, "ARG TAG=1\nFROM a:$TAG\nLABEL tag=$TAG\n", "needs a line ARG TAG"),
        ("UndefinedVar", 2, "FROM a\nADD app-$TARGETARCH /app\n", "needs a line ARG TARGETARCH"),
        ("UndefinedVar", 4, "FROM scratch AS one\nARG A=1\nFROM one\nUSER $A$B\n", "variable B is not set"),
        ("UndefinedArgInFrom", 2, "ARG VERSION=1\nFROM a:${VERSON}\n", "did you mean VERSION?"),
        ("UndefinedArgInFrom", 1, "FROM --platform=$BUILDPLATFROM a\n", "did you mean BUILDPLATFORM?"),
        ("InvalidDefaultArgInFrom", 2, "ARG TAG\nFROM busybox:$TAG\n", "give TAG a default"),
        ("InvalidDefaultArgInFrom", 2, "ARG IMAGE\nFROM ${IMAGE}\n", "give IMAGE a default"),
        ("FromAsCasing", 1, "FROM a as b\n", "FROM and as"),
        ("FromAsCasing", 1, "from a AS b\n", "from and AS"),
        ("FromPlatformFlagConstDisallowed", 1, "FROM --platform=linux/amd64 a\n", "linux/amd64"),
        ("RedundantTargetPlatform", 1, "FROM --platform=${TARGETPLATFORM} a\n", "anyway"),
        ("ExposeInvalidFormat", 2, "FROM a\nEXPOSE 127.0.0.1:8080:80/tcp\n", "EXPOSE 80/tcp"),
        ("ExposeProtoCasing", 2, "FROM a\nEXPOSE 80/TCP\n", "lower case"),
        ("SecretsUsedInArgOrEnv", 2, "FROM a\nARG DB_PASSWORD\n", "DB_PASSWORD"),
        ("SecretsUsedInArgOrEnv", 2, "FROM a\nENV x=1 aws_secret_access_key=1\n", "aws_secret_access_key"),
        ("JSONArgsRecommended", 2, "FROM a\nCMD x\n", "JSON list"),
        ("MalformedList", 2, "FROM a\nRUN ['x', 'y']\n", "double quotes"),
        ("MalformedList", 2, 'FROM a\nCOPY ["x", "y"\n', "is none"),
        ("StageNameCasing", 1, "FROM a AS Build\n", "mixed case"),
        ("ConsistentInstructionCasing", 3, "FROM a\nRUN x\nrun y\n", "run"),
        ("LegacyKeyValueFormat", 2, "FROM a\nENV x y\n", "ENV x=value"),
        ("MaintainerDeprecated", 2, "FROM a\nMAINTAINER x\n", "LABEL"),
        ("WorkdirRelativePath", 2, "FROM a\nWORKDIR x\n", "base image"),
        ("MultipleInstructionsDisallowed", 2, 'FROM a\nCMD ["x"]\nCMD ["y"]\n', "last CMD"),
        ("ReservedStageName", 1, "FROM a AS scratch\n", "scratch"),
    ],
)
def test_each_rule(rule: str, line: int, text: str, word: str) -> None:
    (warning,) = parse(text).warnings
    assert warning.startswith(f"Dockerfile:{line}: {rule}: ")
    assert word in warning
    assert parse(f"# check=skip={rule}\n{text}").warnings == ()
    with pytest.raises(DockerfileError, match=rule):
        parse(f"# check=error=true\n{text}")


def test_the_platform_may_be_constant_in_a_stage_that_is_called_after_it() -> None:
    assert parse("FROM --platform=linux/arm64 a AS build-arm64\n").warnings == ()
