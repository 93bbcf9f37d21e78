"""Notes of a study and its trials for optuna-dashboard: Markdown with tables, small even for large studies.

The dashboard shows neither HTML in notes nor constraints from ``trial.set_constraint``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_trlhpo._texts import in_markdown, plain
from optuna_trlhpo.layers import describe, network_in
from optuna_trlhpo.trials.attributes import read_architecture, read_count
from optuna_trlhpo.trials.training_record import savings
from optuna_trlhpo.visualization._architecture import ArchitectureInfo
from optuna_trlhpo.visualization._study import decimal, feasible

_LEADERS = 5
"""Maximum number of rows in the table of the best trials."""
_CONSTRAINTS = 12
"""Maximum number of rows in the table of constraints."""
_WIDEST = 120
"""Maximum number of characters in a cell."""

BEGIN, END = "[//]: # (optuna-trlhpo begins)", "[//]: # (optuna-trlhpo ends)"
"""Lines around the generated part of a note, which Markdown renderers hide. The rest belongs to users."""


def merged(note: str, own: str) -> str:
    """Replace the generated part of a note by ``own``, or remove it if ``own`` is empty.

    The text of users is kept.

    Examples:
        >>> first = merged("Mine.", "Ours.")
        >>> print(merged(first, "Ours, newer."))
        Mine.
        <BLANKLINE>
        [//]: # (optuna-trlhpo begins)
        <BLANKLINE>
        Ours, newer.
        <BLANKLINE>
        [//]: # (optuna-trlhpo ends)
        >>> merged(first, "")
        'Mine.'
    """
    before, found, rest = note.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if found and not ended:  # without the end line the generated part is unknown, so everything is kept
        before, after = f"{before.strip()}\n\n{rest.strip()}", ""
    part = f"{BEGIN}\n\n{own.strip()}\n\n{END}" if own else ""
    return "\n\n".join(text for text in (before.strip(), part, after.strip()) if text)


def leaders(study: Study) -> list[FrozenTrial]:
    """Return the best complete trials that satisfy all constraints, best first.

    Each network or set of parameters is included once. With several objectives, the Pareto-optimal trials are
    returned in the order of the first objective.
    """
    if len(study.directions) > 1:
        best: Iterable[FrozenTrial] = study.best_trials
    else:
        best = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
    found: dict[str, FrozenTrial] = {}
    for trial in sorted((it for it in best if feasible(it)), key=lambda it: (sign * it.values[0], it.number)):
        found.setdefault(_what(trial), trial)
    return list(found.values())


def study_note(study: Study, architecture: ArchitectureInfo | None) -> str:
    """Return the note of a study: its best trials, constraints and counts.

    Args:
        study: Any study.
        architecture: Architecture of the best trial. None if it has no layers.
    """
    trials, best = study.get_trials(deepcopy=False), leaders(study)
    sections = []
    if best:
        which = "The best trial" if len(study.directions) == 1 else f"The best trial by {_names(study)[0]}"
        sections += [
            f"## {which}: {best[0].number}, {_values(study, best[0])}",
            _network(study, best[0], architecture),
        ]
    else:
        sections.append("No complete trial meets all constraints yet.")
    if len(best) > 1:
        sections += ["## The best trials" if len(study.directions) == 1 else "## Pareto-optimal trials"]
        sections.append(_leaders(study, best[:_LEADERS]))
        if len(best) > _LEADERS and len(study.directions) > 1:
            sections.append(f"... and {len(best) - _LEADERS} more.")
    sections += _constraints(trials, best[:1])
    states = Counter(trial.state for trial in trials)
    counts = ", ".join(f"{count:,} {state.name.lower()}" for state, count in sorted(states.items()))
    lines = [f"{len(trials):,} trials: {counts}." if trials else "No trial yet."]
    trained = savings(study)
    if trained.trained:
        lines.append(f"{trained}.")
    return "\n\n".join([*sections, "## The study", *lines])


def trial_note(study: Study, trial: FrozenTrial, architecture: ArchitectureInfo | None) -> str:
    """Return the note of one of the best trials: its values, network or parameters, and constraints."""
    sections = [
        f"## {_values(study, trial)}",
        _network(study, trial, architecture),
        *_constraints([trial], [trial]),
    ]
    return "\n\n".join(sections)


def _network(study: Study, trial: FrozenTrial, architecture: ArchitectureInfo | None) -> str:
    """Return a table with a row per layer, or per parameter."""
    if architecture is None or architecture.note:
        return table(("parameter", "value"), [(_cell(name), _cell(it)) for name, it in trial.params.items()])
    head = ("layer", "output", _names(study)[0], "gain", "parameters", "MACs")
    rows: list[tuple[str, ...]] = [
        (
            _cell(part.name),
            part.shape,
            "" if part.value is None else number(part.value),
            "" if part.reward is None else decimal(part.reward, signed=True),
            *("" if it is None else number(it) for it in (part.parameters, part.macs)),
        )
        for part in architecture.parts[1:]
    ]
    totals = ("" if it is None else number(it) for it in (architecture.parameters, architecture.macs))
    rows.append(("**total**", "", "", "", *totals))
    left_out = in_markdown(architecture.left_out)
    remark = f"\n\nLayers that were tried after it and not kept: {left_out}" if left_out else ""
    return table(head, rows, left={0, 1}) + remark


def _leaders(study: Study, best: Sequence[FrozenTrial]) -> str:
    costs = [name for name in ("parameters", "macs") if any(read_count(it, name) is not None for it in best)]
    rows = [
        (
            str(trial.number),
            *map(number, trial.values),
            *(number(read_count(trial, name)) for name in costs),
            _cell(_what(trial)),
        )
        for trial in best
    ]
    what = "network" if any(network_in(trial.params) for trial in best) else "parameters"
    head = ("trial", *_names(study), *("MACs" if it == "macs" else it for it in costs), what)
    return table(head, rows, left={len(head) - 1})


def _constraints(trials: Sequence[FrozenTrial], shown: Sequence[FrozenTrial]) -> list[str]:
    """Return a section about constraints, or nothing if there are none."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.constraints))
    if not names:
        return []
    rows = []
    for name in names[:_CONSTRAINTS]:
        values = [trial.constraints[name] for trial in trials if name in trial.constraints]
        own = [number(trial.constraints.get(name)) for trial in shown]
        violated = sum(value > 0 for value in values)
        if len(trials) == 1:
            rows.append((_cell(name), *own, "violated" if violated else "met"))
        else:
            rows.append((_cell(name), *own, f"{len(values)}", f"{violated}", number(max(values))))
    if len(trials) == 1:
        head: tuple[str, ...] = ("constraint", "value", "")
        text = "A constraint is met if its value is 0 or less."
    else:
        head = ("constraint", *("best trial" for _ in shown), "trials with it", "violated in", "highest")
        finished = [trial for trial in trials if trial.state.is_finished()]
        within = sum(feasible(trial) for trial in finished)
        text = (
            f"{within:,} of {len(finished):,} trials meet all constraints (values of 0 or less). "
            "The dashboard ignores constraints, so the trial that it shows as the best may violate one."
        )
    more = [f"... and {len(names) - _CONSTRAINTS} more."] if len(names) > _CONSTRAINTS else []
    return ["## Constraints", table(head, rows), *more, text]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[int] = (0,)) -> str:
    """Format a Markdown table. Columns in ``left`` are aligned to the left, the others to the right.

    Examples:
        >>> print(table(("layer", "MACs"), [("FCL", "90")]))
        | layer | MACs |
        | :--- | ---: |
        | FCL | 90 |
    """
    rules = [":---" if column in left else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rules, *rows))


def number(value: object) -> str:
    """Format a number for readers.

    Examples:
        >>> number(1234567), number(0.98765), number(12.3456789), number(None)
        ('1,234,567', '0.9877', '12.35', '')
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if not isinstance(value, float):
        return "" if value is None else _cell(value)
    return decimal(value)


def _names(study: Study) -> list[str]:
    count = len(study.directions)
    names = study.metric_names or (["value"] if count == 1 else [f"value {k}" for k in range(count)])
    return [_cell(name) for name in names]


def _values(study: Study, trial: FrozenTrial) -> str:
    values = trial.values or []
    return ", ".join(f"{name} {number(it)}" for name, it in zip(_names(study), values, strict=False))


def _what(trial: FrozenTrial) -> str:
    """Return the network of the trial, or its parameters, as one line."""
    found = read_architecture(trial)
    if found is not None:
        return found[0]
    layers = network_in(trial.params)
    return describe(layers) or ", ".join(f"{name}={value}" for name, value in trial.params.items())


def _cell(value: object) -> str:
    text = plain(value)
    return in_markdown(text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}...")
