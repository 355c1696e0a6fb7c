"""A value that is given for a step's parameter when a run is asked for or scheduled: does it fit the parameter's default?"""

from __future__ import annotations

from instar.core.errors import BadInput


def fitted(path: str, value: object, default: object) -> object:
    """The value for a parameter, read as the type of its default where it is a text.

    Args:
        path: `"step.parameter"`, for the error.

    Raises:
        BadInput: It does not fit.

    >>> fitted("trees.rate", "0.5", 0.1)
    0.5
    """
    import msgspec  # a pipeline is read without it

    wanted = type(default)
    try:
        if isinstance(value, str) and wanted is not str and default is not None:
            if wanted is bool:
                return {"true": True, "false": False}[value.lower()]
            return msgspec.json.decode(value, type=wanted) if wanted not in (int, float) else wanted(value)
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if default is not None and (not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool)):
            raise TypeError
    except (ValueError, TypeError, KeyError, msgspec.DecodeError):
        raise BadInput(
            "the value does not fit the parameter",
            subject=f"parameter {path}",
            found=repr(value),
            asked=f"{wanted.__name__}, like its default {default!r}",
        ) from None
    return value
