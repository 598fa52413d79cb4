"""What goes wrong in a step, with what its place in the Dockerfile is found by."""

from swarmd.runtime.errors import Invalid, RuntimeFault


class WrongWord(Invalid):
    """word: what is wrong, as it stands in the instruction if no variable is in it."""

    def __init__(self, message: str, word: str) -> None:
        super().__init__(message)
        self.word = word


class StepFailed(RuntimeFault):
    """code: how the command ended."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
