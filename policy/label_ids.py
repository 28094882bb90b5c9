"""Which id a label has. Headers carry ids, so an id outlives its label's name and is never given twice."""

from collections.abc import Callable, Mapping
from hashlib import blake2b

from policy.compile import ID_BYTES
from policy.errors import Place, PolicyError, Problem
from policy.model import Policy


def assign_label_ids(policy: Policy, known: Mapping[str, bytes], new_id: Callable[[], bytes]) -> dict[str, bytes]:
    """The id of every label of `policy`, by qualified name.

    `known`: the ids of all labels so far, by their last name. A label keeps its id, one that says `was:` takes over
    its old name's, others get a `new_id()`. PolicyError for a known label that is neither there nor renamed: its files
    would be ciphertext for everyone; it can be `retired` instead.
    """
    ids: dict[str, bytes] = {}
    problems: list[Problem] = []
    for label in policy.labels:
        name = label.qualified
        old = policy.was.get(name, "")
        if name in known:
            if old in known:
                message = f"found was: {old}, expected none: {name} has an id of its own already"
                problems.append(Problem(*policy.places[name], message))
            ids[name] = known[name]
        else:
            ids[name] = known[old] if old in known else new_id()
    taken = {*ids, *(policy.was.get(name, "") for name in ids)}
    for name in sorted(known.keys() - taken):
        message = f"the label {name} is gone, expected it with `retired: true`, or another label with `was: {name}`"
        problems.append(Problem(*Place(name.partition("/")[0]), message))
    if problems:
        raise PolicyError(*problems)
    return ids


def preview_label_ids(policy: Policy) -> dict[str, bytes]:
    """Ids made from the names, to try a policy out without a server. Never for real files."""
    return {
        label.qualified: blake2b(label.qualified.encode(), digest_size=ID_BYTES, person=b"grantfs-preview").digest()
        for label in policy.labels
    }
