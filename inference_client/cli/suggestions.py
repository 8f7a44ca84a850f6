""" "Did you mean": what a user may have meant by a name that does not exist."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING

from inference_client.errors import DeploymentNotFound, InferenceError, ModelNotFound, ReportedError

if TYPE_CHECKING:
    from inference_client.client import InferenceClient

_MOST_NAMES = 1000
_MOST_SUGGESTIONS = 3


@contextmanager
def suggesting_models(client: "InferenceClient", typed: str) -> Iterator[None]:
    """Adds to a `ModelNotFound` the models that may have been meant by `typed`; asks the server for them only then.

    None are added if the model is there, and only the version that `typed` names is not.
    """
    try:
        yield
    except ModelNotFound as error:
        name, names = typed.partition("@")[0], _names(client, error)
        if name not in names and (close := find_close(name, names)):
            error.fields["did_you_mean"] = close
        raise


@contextmanager
def suggesting(error: type[InferenceError], typed: str, names: Callable[[], Iterable[str]]) -> Iterator[None]:
    """Adds to an error of this class the `names` that may have been meant by `typed`; asks for them only then."""
    try:
        yield
    except error as raised:
        with suppress(ReportedError):
            if close := find_close(typed, islice(names(), _MOST_NAMES)):
                raised.fields["did_you_mean"] = close
        raise


def find_close(typed: str, names: Iterable[str]) -> list[str]:
    """The names that are written nearly like `typed`, or that contain it; the closest first."""
    by_lower = {name.lower(): name for name in names}
    lower = typed.lower()
    alike = get_close_matches(lower, by_lower, n=_MOST_SUGGESTIONS, cutoff=0.6)
    longer = [name for name in by_lower if len(lower) >= 3 and lower in name and name not in alike]
    return [by_lower[name] for name in [*alike, *longer][:_MOST_SUGGESTIONS] if by_lower[name] != typed]


def _names(client: "InferenceClient", error: ModelNotFound) -> list[str]:
    try:
        if isinstance(error, DeploymentNotFound):
            return [view.human_readable_id for view in islice(client.list_deployments(), _MOST_NAMES)]
        return [model.human_readable_id for model in islice(client.list_models(), _MOST_NAMES)]
    except ReportedError:
        # The error at hand is the one to report.
        return []
