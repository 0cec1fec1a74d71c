"""The one exception of the course: it says what is wrong and what to do next."""

from functools import partial


class CourseError(RuntimeError):
    """Something the reader can mend.

    Parameters
    ----------
    what : str
        What is wrong, naming the file, word or number that caused it.
    next : str
        The reader's next action: a command to run or a thing to change.
    """

    def __init__(self, what: str, *, next: str):
        super().__init__(f"{what}\n  Next: {next}")
        self.what = what
        self.next = next

    def __reduce__(self):
        """So that it survives the way back from a worker process."""
        return partial(type(self), self.what, next=self.next), ()
