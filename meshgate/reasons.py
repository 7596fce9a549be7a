"""The table of every error reason: its senders, its kinds of error, its meaning and the remedy.

docs/reference/reasons.md is made of it. A test compares it with the source: names, kinds and senders.
A reason keeps its meaning, and none is removed before a major version.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from meshgate.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    LimitExceeded,
    MeshError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

GATEWAY: Final = "gateway"
SERVICE: Final = "service"
SDK: Final = "SDK"


class Retry(Enum):
    """Whether the same call can succeed later."""

    NO = "no"
    LATER = "later"
    """After the time in RetryInfo, else with exponential back-off."""
    NEW_TOKEN = "with a new token"  # noqa: S105
    SEALED_ANEW = "sealed anew"


class Reason(NamedTuple):
    """One reason: `meaning` says what happened, `remedy` what helps."""

    name: str
    kinds: tuple[type[MeshError], ...]
    senders: tuple[str, ...]
    retry: Retry
    meaning: str
    remedy: str


class Topic(NamedTuple):
    """Reasons that belong together."""

    title: str
    reasons: tuple[Reason, ...]


def _token(name: str, meaning: str, remedy: str) -> Reason:
    return Reason(f"TOKEN_{name}", (Unauthenticated,), (GATEWAY,), Retry.NEW_TOKEN, meaning, remedy)


def _invalid(name: str, sender: str, meaning: str, remedy: str) -> Reason:
    return Reason(name, (InvalidArgument,), (sender,), Retry.NO, meaning, remedy)


def _later(name: str, sender: str, meaning: str, remedy: str) -> Reason:
    return Reason(name, (Unavailable,), (sender,), Retry.LATER, meaning, remedy)


_TOKENS: Final = Topic(
    "Tokens",
    (
        _token(
            "MISSING", "The call has no bearer token, or more than one.", "Send one `authorization: Bearer` header."
        ),
        _token(
            "MALFORMED",
            "The token does not have the form of a signed JWT that the gateway accepts.",
            "Read the message: it names the part. Get the token from your issuer unchanged.",
        ),
        _token("EXPIRED", "The token's `exp` has passed.", "Get a new token. Check the clock if it is new."),
        _token(
            "NOT_YET_VALID", "The token's `nbf` or `iat` is in the future.", "Check the clocks of issuer and gateway."
        ),
        _token("AUDIENCE", "The token's `aud` names another audience.", "Request a token for the gateway's audience."),
        _token(
            "ISSUER",
            "No configured issuer has the token's `iss`.",
            "Use a trusted issuer, or add a section `[[issuers]]`.",
        ),
        _token(
            "ALGORITHM",
            "The token's algorithm is not allowed for its issuer or for its key.",
            "Sign with one of the issuer's `algorithms`.",
        ),
        _token(
            "KEY_UNKNOWN",
            "The issuer's key set has no key with the token's `kid`.",
            "Publish the key. The gateway fetches the key set again when it meets an unknown key.",
        ),
        _token(
            "SIGNATURE",
            "The signature does not match the token.",
            "Get a new token. Check which key the issuer signs with.",
        ),
        _token("CLAIM", "A claim is absent or has a wrong type or value.", "The message names the claim and its rule."),
        _token(
            "BINDING",
            "The token is bound to a client certificate (RFC 8705), and the connection did not present it.",
            "Connect with the certificate that the token's `cnf` names.",
        ),
        _token(
            "TENANT",
            "The issuer may not name this tenant.",
            "Add the tenant to the issuer's `tenants`, or use its issuer.",
        ),
        _token(
            "REVOKED",
            "The token, its subject or its tenant has been revoked.",
            "Get a new token, if the issuer still gives one.",
        ),
        _later(
            "KEYS_UNAVAILABLE",
            GATEWAY,
            "The gateway has no usable keys of the token's issuer, so it cannot verify the token.",
            "Retry. The operator checks the issuer's key set and `meshgate_gateway_source_age_seconds`.",
        ),
        _later(
            "REVOCATIONS_UNAVAILABLE",
            GATEWAY,
            "The revocation list is unavailable, so no token is accepted.",
            "Retry. The operator checks the list's file or store.",
        ),
        Reason(
            "TOKEN_UNAVAILABLE",
            (Unauthenticated,),
            (SDK,),
            Retry.NEW_TOKEN,
            "The SDK has no token: its source failed, or a sealed call has no token.",
            "Check the token file or the function that returns the token.",
        ),
        Reason(
            "TOKEN_UNREADABLE",
            (Unauthenticated,),
            (SDK,),
            Retry.NEW_TOKEN,
            "The SDK cannot read the token, or its claims `tenant` and `sub` are absent from a token for sealed calls.",
            "Pass a JWT, without quotes or line breaks.",
        ),
        Reason(
            "UNAUTHENTICATED",
            (Unauthenticated,),
            (),
            Retry.NEW_TOKEN,
            "The caller is not authenticated. It is the reason of a status without Meshgate's details.",
            "Get a new token.",
        ),
    ),
)
_POLICY: Final = Topic(
    "Policy",
    (
        Reason(
            "SCOPE_MISSING",
            (PermissionDenied,),
            (GATEWAY,),
            Retry.NO,
            "The token has none of the scopes that the method requires.",
            "Request a scope that the message names. `meshgate policy explain` shows the rule.",
        ),
        Reason(
            "MODEL_NOT_ALLOWED",
            (PermissionDenied,),
            (GATEWAY,),
            Retry.NO,
            "The policy does not allow this model to the tenant.",
            "Use a model that `ListModels` returns, or change `[policy.tenants]`.",
        ),
        Reason(
            "SEALED_REQUIRED",
            (PermissionDenied,),
            (GATEWAY,),
            Retry.NO,
            "The tenant's calls must be sealed.",
            "Connect with `sealed=True`, or use the method of SealedService.",
        ),
        Reason(
            "PEER_NOT_ALLOWED",
            (PermissionDenied,),
            (SERVICE,),
            Retry.NO,
            "The peer's client certificate is not on the server's allow-list.",
            "Call the gateway, not the service. The operator checks `[server.peers]`.",
        ),
        Reason(
            "TENANT_UNKNOWN",
            (PermissionDenied,),
            (SERVICE,),
            Retry.NO,
            "The call has no tenant, and a custom classifier always belongs to one.",
            "Call through the gateway.",
        ),
        Reason(
            "PERMISSION_DENIED",
            (PermissionDenied,),
            (),
            Retry.NO,
            "The caller may not do this. It is the reason of a status without Meshgate's details.",
            "Ask the operator.",
        ),
    ),
)
_LIMITS: Final = Topic(
    "Limits and load",
    (
        Reason(
            "RATE_LIMITED",
            (LimitExceeded,),
            (GATEWAY,),
            Retry.LATER,
            "A limit on requests per second is spent. QuotaFailure names the limit and its owner.",
            "Retry after the time in RetryInfo.",
        ),
        Reason(
            "TOKENS_EXHAUSTED",
            (LimitExceeded,),
            (GATEWAY,),
            Retry.LATER,
            "A limit on tokens per minute is spent.",
            "Retry after the time in RetryInfo. Ask for fewer output tokens.",
        ),
        Reason(
            "CONCURRENCY_LIMITED",
            (LimitExceeded,),
            (GATEWAY, SERVICE),
            Retry.LATER,
            "The caller has as many calls, streams or trainings in flight as its limit allows.",
            "Wait until one of your calls has ended.",
        ),
        Reason(
            "TOO_MANY_CLASSIFIERS",
            (LimitExceeded,),
            (SERVICE,),
            Retry.NO,
            "The tenant has as many custom classifiers as the configuration allows.",
            "Delete a classifier.",
        ),
        _later(
            "LIMITS_UNAVAILABLE",
            GATEWAY,
            "The store of limits is unavailable, and `on_outage` is `deny`.",
            "Retry. The operator checks the store and `meshgate_gateway_limit_store_up`.",
        ),
        Reason(
            "OVERLOADED",
            (Unavailable, LimitExceeded),
            (GATEWAY, SERVICE),
            Retry.LATER,
            "A bound on calls, queued tokens or memory is reached. Health checks get RESOURCE_EXHAUSTED.",
            "Retry after the time in RetryInfo. The operator adds replicas or raises the bound.",
        ),
        Reason(
            "SILENT_WRITER",
            (DeadlineExceeded,),
            (GATEWAY,),
            Retry.NO,
            "The caller sent no message within the idle timeout.",
            "Send messages sooner, or half-close the stream.",
        ),
        Reason(
            "SLOW_READER",
            (DeadlineExceeded,),
            (GATEWAY,),
            Retry.NO,
            "The caller did not read responses within the idle timeout.",
            "Read the stream faster, or buffer it.",
        ),
    ),
)
_REQUESTS: Final = Topic(
    "Requests",
    (
        Reason(
            "INVALID_ARGUMENT",
            (InvalidArgument,),
            (),
            Retry.NO,
            "A field is out of its range. BadRequest names each wrong field.",
            "Correct the fields: the API reference has their ranges.",
        ),
        Reason(
            "MALFORMED",
            (InvalidArgument,),
            (GATEWAY, SERVICE),
            Retry.NO,
            "The message is not valid protobuf, or the call has too few or too many messages.",
            "Use the generated stubs of the same contract.",
        ),
        Reason(
            "MESSAGE_TOO_LARGE",
            (InvalidArgument, LimitExceeded),
            (GATEWAY, SERVICE, SDK),
            Retry.NO,
            "A message is larger than its receiver allows.",
            "Send fewer inputs in one call. The operator's key is `server.max_message_bytes`.",
        ),
        Reason(
            "COMPRESSED",
            (Unimplemented,),
            (GATEWAY, SERVICE),
            Retry.NO,
            "The message is compressed.",
            "Switch compression off in the channel.",
        ),
        _invalid(
            "INPUT_TOO_LONG",
            SERVICE,
            "The input has more tokens than the model, or the tokens reserved for the call, allow.",
            "Shorten the input, or set `truncate` where the method has it.",
        ),
        _invalid(
            "TOKEN_CAP_EXCEEDED",
            SERVICE,
            "The inputs have more tokens than the gateway reserved for the call.",
            "Send fewer inputs in one call.",
        ),
        _invalid(
            "CONSTRAINT_INVALID",
            SERVICE,
            "The constraint (JSON schema, regular expression or grammar) cannot be compiled.",
            "Read the message: it names the part that is not supported.",
        ),
        Reason(
            "METHOD_UNKNOWN",
            (Unimplemented,),
            (GATEWAY, SERVICE),
            Retry.NO,
            "The server does not have this method.",
            "Check the method's name, and the version of the server.",
        ),
        Reason(
            "FEATURE_UNAVAILABLE",
            (Unimplemented,),
            (SERVICE,),
            Retry.NO,
            "The model does not support constraints, or the service has no adapters for it.",
            "Leave the field out, or choose another model.",
        ),
        Reason(
            "UNIMPLEMENTED",
            (Unimplemented,),
            (),
            Retry.NO,
            "The deployment does not have the method or the feature.",
            "Check the version of the server.",
        ),
    ),
)
_MODELS: Final = Topic(
    "Models",
    (
        Reason(
            "MODEL_NOT_FOUND",
            (NotFound,),
            (SERVICE,),
            Retry.NO,
            "No model or classifier has this name, or it belongs to another tenant.",
            "Use a name that `ListModels` or `ListClassifiers` returns.",
        ),
        _later("STARTING", SERVICE, "The service is loading its models.", "Retry."),
        Reason(
            "MODEL_FAILED",
            (Unavailable,),
            (SERVICE,),
            Retry.LATER,
            "The model failed or hangs. The service ends, and its supervisor starts another.",
            "Retry after the time in RetryInfo. The operator reads the service's log.",
        ),
        Reason(
            "ADAPTER_NOT_FOUND",
            (NotFound,),
            (SERVICE,),
            Retry.NO,
            "No adapter has this name, or it belongs to another tenant.",
            "Check the name, and the tenant's folder of adapters.",
        ),
        _invalid(
            "ADAPTER_UNUSABLE",
            SERVICE,
            "The adapter's files do not fit the model, or are damaged.",
            "Read the message, and repair or replace the adapter.",
        ),
        _later("ADAPTER_CHANGING", SERVICE, "The adapter's files are being replaced.", "Retry."),
        Reason(
            "NOT_FOUND",
            (NotFound,),
            (),
            Retry.NO,
            "The named object does not exist. It is the reason of a status without Meshgate's details.",
            "Check the name.",
        ),
    ),
)
_CLASSIFIERS: Final = Topic(
    "Custom classifiers",
    (
        _invalid(
            "NAME_TAKEN",
            SERVICE,
            "One of the service's own models has this name.",
            "Choose another name for the classifier.",
        ),
        _invalid(
            "TRAINING_TOO_LARGE",
            SERVICE,
            "The training has more examples, characters or labels than one training may have.",
            "Train with fewer examples.",
        ),
        Reason(
            "TRAINING_OFF",
            (Unimplemented,),
            (SERVICE,),
            Retry.NO,
            "The deployment does not train classifiers.",
            "The operator configures `[custom]`.",
        ),
        Reason(
            "CLASSIFIER_STALE",
            (NotFound,),
            (SERVICE,),
            Retry.NO,
            "The classifier was trained on another encoder.",
            "Train the classifier again.",
        ),
        Reason(
            "CLASSIFIER_DAMAGED",
            (Internal,),
            (SERVICE,),
            Retry.NO,
            "The classifier's files are damaged.",
            "Train the classifier again, or roll it back.",
        ),
        Reason(
            "VERSION_NOT_FOUND",
            (NotFound,),
            (SERVICE,),
            Retry.NO,
            "The classifier has no version of this number.",
            "Use one of the versions in the message.",
        ),
    ),
)
_SEALING: Final = Topic(
    "Sealed calls",
    (
        Reason(
            "SEAL_KEY_UNKNOWN",
            (InvalidArgument,),
            (GATEWAY, SERVICE),
            Retry.SEALED_ANEW,
            "The recipient does not accept this sealing key any more.",
            "List the keys and seal the call again, once. The SDK does this.",
        ),
        Reason(
            "SEAL_EXPIRED",
            (InvalidArgument,),
            (GATEWAY, SERVICE),
            Retry.SEALED_ANEW,
            "The envelope's time is outside the window, by default 120 s either way.",
            "Check the clock and seal the call again.",
        ),
        Reason(
            "SEAL_REPLAYED",
            (InvalidArgument,),
            (GATEWAY, SERVICE),
            Retry.SEALED_ANEW,
            "The recipient has already opened this envelope: the same sealed call was sent twice.",
            "Seal each attempt anew. If you sent it once, another holder of your token replayed it: revoke the token.",
        ),
        Reason(
            "SEAL_INVALID",
            (InvalidArgument, Internal),
            (GATEWAY, SERVICE, SDK),
            Retry.NO,
            "The sealed message does not open: the principal, the header, the key, the order or a byte differs. "
            "From the SDK: the reply does not open.",
            "Check that the token and the sealed header name the same principal.",
        ),
        Reason(
            "SEAL_TRUNCATED",
            (Internal,),
            (SDK,),
            Retry.NO,
            "A sealed reply ended before its last segment.",
            "Do not use the part that was received. Call again.",
        ),
        _later(
            "REPLAYS_UNAVAILABLE",
            GATEWAY,
            "The store of used envelopes is unavailable, so the gateway cannot exclude a replay.",
            "Seal the call again and retry. The operator checks the store.",
        ),
        Reason(
            "METHOD_UNSEALABLE",
            (Unimplemented,),
            (SDK,),
            Retry.NO,
            "The method has no sealed form.",
            "Call the method on a channel without `sealed=True`.",
        ),
        Reason(
            "SEALING_UNAVAILABLE",
            (Unimplemented,),
            (SDK,),
            Retry.NO,
            "The gateway lists no sealing key of the chosen recipient.",
            "Choose another recipient. The operator configures `[sealing]`.",
        ),
        Reason(
            "SEALING_KEY_NOT_PINNED",
            (PermissionDenied,),
            (SDK,),
            Retry.NO,
            "None of the recipient's keys is one of the keys that the client pins.",
            "Get the new key's fingerprint from the operator and pin it.",
        ),
    ),
)
_AVAILABILITY: Final = Topic(
    "Availability",
    (
        _later(
            "BACKEND_UNAVAILABLE",
            GATEWAY,
            "No replica of the service can be reached.",
            "Retry. The operator checks `meshgate_gateway_backend_up`.",
        ),
        _later(
            "AUDIT_UNAVAILABLE",
            GATEWAY,
            "A required audit sink cannot write, so the gateway accepts no calls.",
            "Retry. The operator checks the disk and `meshgate_gateway_audit_sink_up`.",
        ),
        Reason(
            "DRAINING",
            (Unavailable,),
            (GATEWAY, SERVICE),
            Retry.LATER,
            "The server is shutting down and accepts no new calls.",
            "Retry: another replica answers.",
        ),
        Reason(
            "SERVICE_UNKNOWN",
            (NotFound,),
            (GATEWAY, SERVICE),
            Retry.NO,
            "The health check names a gRPC service that the server does not have.",
            "Check the name, or leave it empty for the whole server.",
        ),
        Reason(
            "UNAVAILABLE",
            (Unavailable,),
            (),
            Retry.LATER,
            "The server cannot be reached. It is the reason of a status without Meshgate's details.",
            "Check target, CA and network, then retry.",
        ),
        Reason(
            "DEADLINE_EXCEEDED",
            (DeadlineExceeded,),
            (GATEWAY, SERVICE),
            Retry.NO,
            "The caller's deadline passed.",
            "Set a longer deadline, or ask for less.",
        ),
        Reason(
            "CANCELLED", (Cancelled,), (GATEWAY, SERVICE), Retry.NO, "The caller cancelled the call.", "None is needed."
        ),
        Reason(
            "INTERNAL",
            (Internal,),
            (GATEWAY, SERVICE, SDK),
            Retry.NO,
            "Meshgate has a defect or a broken installation. The cause is in the server's log under the request id.",
            "Send the request id to the operator.",
        ),
    ),
)

TOPICS: Final = (_TOKENS, _POLICY, _LIMITS, _REQUESTS, _MODELS, _CLASSIFIERS, _SEALING, _AVAILABILITY)
REASONS: Final = {reason.name: reason for topic in TOPICS for reason in topic.reasons}
