"""An error says what happened, to what, what was found and asked for, and what to do next."""

from __future__ import annotations

import pickle

from instar.core import errors


def test_the_message_tells_all_parts() -> None:
    error = errors.GateFailed(
        "recall is too low",
        subject="churn v7",
        found=0.61,
        asked="0.70 or more",
        next_step="Compare it with the champion.",
    )
    assert str(error) == (
        "churn v7: recall is too low; found 0.61, asked for 0.70 or more.\nNext: Compare it with the champion."
    )


def test_facts_survive_a_process_border() -> None:
    error = errors.MissingColumn("it is not there", subject="flights", found=["a"], asked="b", next_step="Add it.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.MissingColumn
    assert (again.subject, again.found, again.asked, str(again)) == (error.subject, ["a"], "b", str(error))


def test_the_tree_drawn_in_the_docstring_is_the_tree() -> None:
    drawn = {
        line.split("├──")[-1].split("└──")[-1].split()[0]
        for line in (errors.__doc__ or "").splitlines()
        if "──" in line
    }
    real = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.InstarError)
    }
    assert drawn == real - {"InstarError"}
