"""Tells the feedback log of a run that ended; whatever the log's state, the run is not harmed."""

from __future__ import annotations

import logging

from medgen.agents.state import AgentState, Choice, Trial, candidates_of
from medgen.data.images import pixel_sha256
from medgen.errors import MedgenError
from medgen.feedback.log import configured_log
from medgen.feedback.records import ActionOutcome, LoggedCandidate, LoggedRun
from medgen.records import Plan, Request

PATIENCE = 2.0  # seconds that a finished run waits for a log held by others


def log_run(state: AgentState) -> None:
    """Add a run whose every image is settled to the log of `MEDGEN_FEEDBACK`.

    A log that cannot be written is one warning line on stderr. A run that the log has already is
    not added again.
    """
    try:
        log = configured_log(PATIENCE)
        if log is None:
            return
        try:
            log.append_run(logged_run(state))
        finally:
            log.close()
    except MedgenError as error:
        logging.getLogger(__name__).warning("note: this run is not in the feedback log: %s", error)


def logged_run(state: AgentState) -> LoggedRun:
    """A run as the log keeps it: the plan, and every candidate with its critique.

    Raises:
        BadInput: A candidate's image is gone.
    """
    request, plan = Request.model_validate(state["request"]), Plan.model_validate(state["plan"])
    choices = {one.best: one for one in map(Choice.model_validate, state["choices"])}
    trials = [Trial.model_validate(dumped) for dumped in state.get("trials", [])]
    candidates = [
        LoggedCandidate(
            run=state["run_id"],
            prompt=request.prompt,
            modality=plan.modality,
            image_sha256=pixel_sha256(drawn.image),
            chosen=drawn.id in choices,
            decision=choices[drawn.id].decision if drawn.id in choices else None,
            why=choices[drawn.id].why if drawn.id in choices else "",
            drawn=drawn,
            outcomes=[_outcome(trial) for trial in trials if trial.candidate == drawn.id],
        )
        for drawn in candidates_of(state)
    ]
    return LoggedRun(
        run=state["run_id"],
        request=request,
        plan=plan,
        generator=state["generator"]["name"],
        fingerprint=state["generator"]["fingerprint"],
        candidates=candidates,
    )


def _outcome(trial: Trial) -> ActionOutcome:
    return ActionOutcome.model_validate(trial.model_dump(exclude={"candidate", "parent"}))
