"""One list of stages: the pipeline marks no other, in that order, and an explanation has the steps of all of them."""

from __future__ import annotations

import ast
import inspect

from gateway import stages
from gateway.audit import journal
from gateway.authentication import STEPS
from gateway.authorisation import explain
from gateway.authorisation.policy import Policy, PolicyConfig
from gateway.pipeline import Pipeline


def marked(source: object) -> list[str]:
    """The stages of `call.mark(stages.NAME)`, from top to bottom."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(source))) if isinstance(node, ast.Call)]  # type: ignore[arg-type]
    marks = [node for node in calls if isinstance(node.func, ast.Attribute) and node.func.attr == "mark"]
    marks.sort(key=lambda node: node.lineno)
    return [getattr(stages, node.args[0].attr) for node in marks if isinstance(node.args[0], ast.Attribute)]


def test_the_pipeline_marks_the_stages_in_their_order() -> None:
    found = marked(Pipeline) + marked(journal)
    assert found == [stage for stage in stages.STAGES if stage != stages.ENTER]  # whose time is that of reading


def test_an_explanation_answers_for_every_step_after_the_tokens() -> None:
    checks = explain._checks(explain.Question("/x"), Policy(PolicyConfig()), explain.NO_SERVICES)
    assert (*STEPS, *checks) == stages.EXPLAINED
