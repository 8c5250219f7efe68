"""The errors a user can meet, each with the exit code of the command that meets it."""


class AdaptError(Exception):
    """Something the user can mend. The message is one line: expected, got, where, what to do."""

    exit_code = 2


class UsageError(AdaptError, ValueError):
    """A setting or an argument that cannot be used."""


class RecipeError(UsageError):
    """A recipe with problems; the message lists all of them, one per line."""


class ShapeError(AdaptError, ValueError):
    """A tensor of another shape than expected."""


class RangeError(AdaptError, ValueError):
    """Values outside the range that was promised."""


class PhotoError(AdaptError, ValueError):
    """An image that cannot be read or written. Batch commands name it and go on."""

    exit_code = 3


class WeightsError(AdaptError):
    """Weights that are missing, damaged, or do not fit the network."""

    exit_code = 4


class TrainingError(AdaptError):
    """Training stopped at the last good state (a loss that is not finite, for one)."""

    exit_code = 1


class VerificationError(AdaptError):
    """An exported model that does not compute what the trained one computes."""

    exit_code = 1
