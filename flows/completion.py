"""Completion scripts for shells, from the argument parser: static text that starts no Python.

Names of pipelines are read from pipelines.yaml by `sed` when somebody presses the key. Called by
`flows/commands/completion.py`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PIPELINES = r"sed -n '/^pipelines:/,/^[^ #]/s/^  \([a-z][a-z0-9-]*\):.*/\1/p' 2>/dev/null"
"""Two spaces under `pipelines:`, as every file of ours has it."""
_NAMES = "tunegate_pipelines() { " + PIPELINES + ' "${TUNEGATE_CONFIG:-pipelines.yaml}"; }'


@dataclass(frozen=True)
class Words:
    """What may follow a command."""

    command: str
    """`run`, or `gate explain`; empty for the program itself."""
    told: str
    subcommands: tuple[tuple[str, str], ...]
    """Name and its first sentence."""
    flags: tuple[str, ...]
    valued: tuple[tuple[str, tuple[str, ...]], ...]
    """Option that takes a value, and the choices; none where any text, or a file, may stand."""
    choices: tuple[str, ...]
    """Of the first argument, where it is one of a few."""
    takes_pipeline: bool


def read_parser(command: Any, name: str = "") -> Iterator[Words]:
    """Everything that can be completed, command by command.

    Args:
        command: A command or group of the argument parser.
        name: Its words behind `tunegate`.
    """
    subcommands: dict[str, Any] = getattr(command, "commands", {})
    options = [each for each in command.params if each.opts[0].startswith("-")]
    arguments = [each for each in command.params if not each.opts[0].startswith("-")]
    yield Words(
        command=name,
        told=_sentence(command.help),
        subcommands=tuple((key, _sentence(inner.help)) for key, inner in subcommands.items()),
        flags=(*(opt for each in options if each.is_flag for opt in (*each.opts, *each.secondary_opts)), "--help"),
        valued=tuple((opt, _choices(each)) for each in options if not each.is_flag for opt in each.opts),
        choices=_choices(arguments[0]) if arguments else (),
        takes_pipeline=any(each.name == "pipeline" for each in arguments),
    )
    for key, inner in subcommands.items():
        yield from read_parser(inner, f"{name} {key}".strip())


def bash_script(words: tuple[Words, ...]) -> str:
    """For `source <(tunegate completion bash)`."""
    cases = "\n".join(_bash_case(each) for each in words)
    return f"""\
# bash completion of tunegate; made by `tunegate completion bash`
{_NAMES}
_tunegate() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" cmd="" word
  for word in "${{COMP_WORDS[@]:1:$((COMP_CWORD-1))}}"; do
    case "$cmd $word" in
{_bash_commands(words)}
    esac
  done
  COMPREPLY=()
  case "$cmd" in
{cases}
  esac
}}
complete -o default -F _tunegate tunegate
"""


def zsh_script(words: tuple[Words, ...]) -> str:
    """For `source <(tunegate completion zsh)`: the script of bash, which zsh runs after `bashcompinit`."""
    start = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -D -u; }"
    return f"{start}\nautoload -Uz bashcompinit && bashcompinit\n{bash_script(words)}"


def fish_script(words: tuple[Words, ...]) -> str:
    """For `tunegate completion fish | source`."""
    lines = [
        "# fish completion of tunegate; made by `tunegate completion fish`",
        "function __tunegate_pipelines",
        "  set -q TUNEGATE_CONFIG; or set -l TUNEGATE_CONFIG pipelines.yaml",
        f"  {PIPELINES} $TUNEGATE_CONFIG",
        "end",
    ]
    for each in words:
        lines += _fish_lines(each)
    return "\n".join(lines) + "\n"


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split()).replace("\b", "")


def _choices(parameter: Any) -> tuple[str, ...]:
    return tuple(str(getattr(each, "value", each)) for each in parameter.type_descriptor.choices or ())


def _bash_commands(words: tuple[Words, ...]) -> str:
    lines = []
    for each in words:
        for name, _ in each.subcommands:
            inner = f"{each.command} {name}".strip()
            lines.append(f'      "{each.command} {name}") cmd="{inner}" ;;')
    return "\n".join(lines)


def _bash_case(each: Words) -> str:
    options = " ".join((*each.flags, *(name for name, _ in each.valued)))
    first = " ".join((*(name for name, _ in each.subcommands), *each.choices))
    lines = [f'    "{each.command}")']
    valued = [(name, choices) for name, choices in each.valued if choices]
    free = [name for name, choices in each.valued if not choices]
    if valued or free:
        lines.append('      case "$prev" in')
        for name, choices in valued:
            lines.append(f'        {name}) COMPREPLY=($(compgen -W "{" ".join(choices)}" -- "$cur")); return ;;')
        if free:
            lines.append(f"        {'|'.join(free)}) return ;;")
        lines.append("      esac")
    lines.append(f'      if [[ "$cur" == -* ]]; then COMPREPLY=($(compgen -W "{options}" -- "$cur"))')
    if each.takes_pipeline:
        lines.append('      else COMPREPLY=($(compgen -W "$(tunegate_pipelines)" -- "$cur"))')
    elif first:
        lines.append(f'      else COMPREPLY=($(compgen -W "{first}" -- "$cur"))')
    lines.append("      fi ;;")
    return "\n".join(lines)


def _fish_lines(each: Words) -> Iterator[str]:
    seen = each.command.split()
    names = " ".join(name for name, _ in each.subcommands)
    conditions = [f"__fish_seen_subcommand_from {word}" for word in seen]
    if each.subcommands:
        conditions.append(f"not __fish_seen_subcommand_from {names}")
    when = shlex.quote("; and ".join(conditions)) if conditions else "''"
    for name, told in each.subcommands:
        yield f"complete -c tunegate -f -n {when} -a {name} -d {shlex.quote(told)}"
    if each.takes_pipeline:
        yield f"complete -c tunegate -f -n {when} -a '(__tunegate_pipelines)'"
    if each.choices:
        yield f"complete -c tunegate -f -n {when} -a {shlex.quote(' '.join(each.choices))}"
    for flag in each.flags:
        yield f"complete -c tunegate -n {when} {_fish_option(flag)}"
    for name, choices in each.valued:
        given = f" -a {shlex.quote(' '.join(choices))} -f" if choices else ""
        yield f"complete -c tunegate -n {when} {_fish_option(name)} -r{given}"


def _fish_option(option: str) -> str:
    bare = option.lstrip("-")
    return f"-l {bare}" if option.startswith("--") else f"-s {bare}"
