"""What a user can be told.

Every error that a person may cause or meet is a :class:`ScaphoidError`. Its message is one plain sentence that says
what was expected and what came. It names no file, no path and nothing of a patient, so it can be shown on any screen
and written to any log; the caller, who knows the file, says which one it was.
"""


class ScaphoidError(Exception):
    """Anything that went wrong in a way that a user can understand."""


class RadiographError(ScaphoidError):
    """A file that cannot be read as one radiograph."""


class CheckpointError(ScaphoidError):
    """A checkpoint that is incomplete, altered, unknown or made for something else."""


class DatasetError(ScaphoidError):
    """A folder or table that does not hold the studies it was said to hold."""


class SimulationError(ScaphoidError):
    """A simulated film that was asked for and cannot be made."""


class ScoresError(ScaphoidError):
    """Labels and scores from which nothing can be measured."""


class ExplanationError(ScaphoidError):
    """An explanation that was asked for and cannot be given."""


class TrainingError(ScaphoidError):
    """Training settings that cannot be carried out."""
