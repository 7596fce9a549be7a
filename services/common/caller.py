"""The caller of a service and the time left: the gateway's metadata of a call, beside its request."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshgate.rpc import metadata

if TYPE_CHECKING:
    from meshgate.rpc.guard import Context


class CallerIdentity(NamedTuple):
    """The owner of some work. Turns are fair between tenants, and between the subjects of a tenant."""

    tenant: str = ""
    subject: str = ""
    """"" if unknown."""


NOBODY = CallerIdentity()


class Caller(NamedTuple):
    """A caller, as its call began."""

    tenant: str
    """The tenant whose share of the model it uses; "" if unknown."""
    token_cap: int | None
    model: str
    """The model's own name, as the gateway resolved and authorised it; "" to use the request's."""
    subject: str = ""

    @property
    def who(self) -> CallerIdentity:
        """The owner of the work."""
        return CallerIdentity(self.tenant, self.subject)


def model_of(context: Context) -> str:
    """The model's own name, as the gateway resolved and authorised it; "" to use the request's."""
    for key, value in context.invocation_metadata() or ():
        if key == metadata.MODEL and isinstance(value, bytes):
            return value.decode("utf-8", "replace")
    return ""


def caller_of(context: Context) -> Caller:
    """Reads a call's metadata. Raises InvalidArgument for a token cap that is no number."""
    sent = context.invocation_metadata()
    tenant = model = subject = ""
    for key, value in sent or ():
        if key == metadata.TENANT and isinstance(value, str):
            tenant = value
        elif key == metadata.MODEL and isinstance(value, bytes):
            model = value.decode("utf-8", "replace")
        elif key == metadata.SUBJECT:
            subject = metadata.subject_of(value)
    return Caller(tenant, metadata.token_cap_of(sent), model, subject)
