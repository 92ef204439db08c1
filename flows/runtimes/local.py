"""The results of one task for each hospital."""

from collections.abc import Sequence

from prefect.futures import PrefectFutureList, wait

from tasks.errors import StudyError
from tasks.store import Ref
from tasks.text.wording import counted


def gather(futures: PrefectFutureList[Ref], hospitals: Sequence[str]) -> list[Ref]:
    """The results of one task for each hospital, once all have ended.

    Raises StudyError that names the hospitals that failed; what the others made is kept.
    """
    wait(list(futures))
    failed = {
        hospital: future.result(raise_on_failure=False)
        for hospital, future in zip(hospitals, futures, strict=True)
        if not future.state.is_completed()
    }
    if failed:
        hospital, error = next(iter(failed.items()))
        reason = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
        raise StudyError(
            f"{len(failed)} of {counted(len(hospitals), 'hospitals')} failed, first {hospital}: {reason} "
            "(the others' work is kept: retry the run once this is mended)"
        )
    return futures.result()
