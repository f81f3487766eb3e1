"""A page on which people change a picture by hand and see what models answer (`lse play`)."""

from lse_measure.play.folder import write_playground
from lse_measure.play.runtime import find_runtime
from lse_measure.play.server import serving

__all__ = ["find_runtime", "serving", "write_playground"]
