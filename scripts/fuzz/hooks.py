"""What schemathesis must know of us: where things are that a route can reach, and which failures are not ours."""

import os

import schemathesis

# What the seed has of each kind.
SEEDED = 12
OPERATION = os.environ["FUZZ_OPERATION"]
# An answer above 499 that says what somebody else's machine or the lack of room did.
THEIRS = {"HOST_ERROR", "HOST_UNREACHABLE", "RESOURCE_UNAVAILABLE"}


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Every other id is one that is there."""
    if not path_parameters:
        return path_parameters
    value = path_parameters.get("id")
    if isinstance(value, int) and not isinstance(value, bool) and value % 2 == 0:
        return {**path_parameters, "id": value % SEEDED + 1}
    if context.operation.path.startswith("/api/operations/") and isinstance(value, str) and len(value) % 2 == 0:
        return {**path_parameters, "id": OPERATION}
    return path_parameters


@schemathesis.check
def never_our_fault(ctx, response, case):
    """No 5xx but for hosts that can't be reached and room that is not there, in our own words, with the request's id."""
    if response.status_code < 400:
        return
    body = response.json()
    if response.status_code >= 500:
        assert body["code"] in THEIRS, f"{response.status_code} {body}"
    assert body["requestId"] == response.headers["x-request-id"][0], body
