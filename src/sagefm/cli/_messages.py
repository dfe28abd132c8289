"""Messages of the Python functions in the words of the command line."""

import re
import shlex

_NAMES = (
    "condition_key|error_rate|label_key|layer|levels|mask|method|n_domains|patient_key|pooling|region|seed|share|"
    "slide_key|smooth|subtype_key|to|top|use_rep|where"
)
_ASSIGNED = re.compile(rf"(?<![\w'\"-])({_NAMES})=('[^']*'|\"[^\"]*\"|[^\s;,:()]*)")
"""``slide_key='section'``, or ``slide_key=`` where the value is for the user to choose."""
_NAMED = re.compile(
    r"(?<![\w'\"-])(condition_key|error_rate|n_domains|patient_key|slide_key|use_rep)(?![\w'\"])"
)
_FUNCTION = re.compile(
    r"`?\bsagefm\.(?:(?:tl|pl)\.([a-z]+)|pp\.(aggregate|disaggregate))(?:\((?:slides)?\))?`?"
)


def for_command(message: str) -> str:
    """Write the arguments and functions in a message as options and commands."""
    message = _ASSIGNED.sub(_option, message)
    message = _NAMED.sub(lambda found: _flag(found[1]), message)
    message = _FUNCTION.sub(lambda found: f"`sagefm {found[1] or found[2]}`", message)
    return message.replace("sagefm.read ", "reading ")


def _option(found: re.Match[str]) -> str:
    name, value = found.groups()
    quoted = shlex.quote(value.strip("'\"")) if value else ""
    return f"{_flag(name)} {quoted}".rstrip()


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
