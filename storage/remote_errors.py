"""Errors of object stores in words: what was refused or lost, and the way out.

What obstore says is long, and may hold addresses with signatures. Only the status, the server's
own code and a cleaned line of it get into a message.
"""

import re
from dataclasses import dataclass

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from storage.connections import PATIENCE_VARIABLE, Provider
from storage.errors import EngineError, InputError, TransientError
from storage.redaction import redacted

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([\w.]{1,60})</Code>|\(code: ([\w.]{1,60})\)|\"error\": ?\"(\w{1,60})\"")
_SAID = re.compile(r"<Message>([^<]{1,300})")
_REGION = re.compile(r"expecting '([\w-]{1,40})'|<Region>([\w-]{1,40})</Region>")
_BEYOND = re.compile("status code: 416|InvalidRange|Wanted range starting at")
_AGAIN = "run the same command again"


@dataclass(frozen=True)
class _Kind:
    """A kind of error, known by a pattern in what obstore says.

    Attributes:
        pattern: Found in the text.
        words: What happened and the way out; may name ``{credentials}``, ``{bucket}``, ...
        error: What it becomes.
    """

    pattern: re.Pattern[str]
    words: str
    error: type[EngineError] = InputError


def _kind(pattern: str, words: str, error: type[EngineError] = InputError) -> _Kind:
    return _Kind(re.compile(pattern), words, error)


# the first that fits
_KINDS = (
    _kind(
        "BadScheme|builder error",
        "plain http is not allowed; give an https address, or set {allow_http}=true for a server "
        "in a network of your own",
    ),
    _kind(
        "NoSuchBucket|ContainerNotFound|InvalidBucketName|specified bucket does not exist",
        "there is no such {bucket}; make it with the provider's tools, or name another one",
    ),
    _kind(
        r"169\.254\.|metadata\.google\.internal|metadata/identity|Missing credential",
        "no credentials were found; set {credentials} in the environment{profiles}",
    ),
    _kind(
        "AuthorizationHeaderMalformed|PermanentRedirect|TemporaryRedirect|IllegalLocationConstraint"
        "|InvalidRegion|without LOCATION",
        "the {bucket} lies in another region{region}; set AWS_REGION to it, and AWS_ENDPOINT_URL "
        "if the server is none of AWS",
    ),
    _kind(
        "ExpiredToken|TokenRefreshRequired|ExpiredAuthenticationToken|TokenExpired",
        f"the temporary credentials have expired; renew {{credentials}} and {_AGAIN}",
    ),
    _kind(
        "RequestTimeTooSkewed|RequestExpired",
        f"the clock of this machine is wrong by more than the server allows; set it and {_AGAIN}",
    ),
    _kind(
        "InvalidAccessKeyId|SignatureDoesNotMatch|InvalidClientTokenId|InvalidToken"
        "|AuthenticationFailed|InvalidAuthenticationInfo|InvalidSecurity|invalid_grant"
        "|invalid_client|status code: 401",
        "the credentials are not accepted; check {credentials}",
    ),
    _kind(
        "StorageFull|QuotaExceeded|InsufficientStorage|status code: 507",
        f"there is no room left; free some there and {_AGAIN}",
    ),
    _kind(
        "AccessDenied|AllAccessDisabled|AuthorizationFailure|AuthorizationPermissionMismatch"
        "|InsufficientAccountPermissions|status code: 403",
        "the credentials do not give the right to {doing} there; the rights to list, read, write "
        "and delete below the root are needed",
    ),
    _kind(
        "NotImplemented|MethodNotAllowed|status code: 501|status code: 405",
        "the server does not know this request; it must know conditional writes (If-None-Match, "
        "If-Match) as S3, MinIO, GCS and Azure do",
    ),
    _kind(
        "InvalidContentType|InvalidMessage|CorruptMessage",
        "the server does not speak https; check {endpoints} (an http address needs "
        "{allow_http}=true)",
    ),
    _kind(
        "InvalidCertificate|UnknownIssuer|NotValidForName|CertNotValid|UnknownCA|CaUsedAsEndEntity",
        "the server's certificate is not trusted (unknown issuer, other name or out of date); "
        "name the server as the certificate does, or its issuer's certificate in SSL_CERT_FILE",
    ),
    _kind(
        "TimedOut|kind: Timeout|operation timed out|deadline has elapsed",
        f"no answer came in time; check the network and {_AGAIN}, with a larger "
        f"{PATIENCE_VARIABLE} where the network is slow",
        TransientError,
    ),
    _kind(
        "dns error",
        f"the name of the server is not known; check {{endpoints}} and the network and {_AGAIN}",
        TransientError,
    ),
    _kind(
        r"kind: Connect\b|ConnectionRefused|Unreachable",
        f"the server cannot be reached; check {{endpoints}} and the network and {_AGAIN}",
        TransientError,
    ),
    _kind(
        r"status code: (429|5\d\d|408|409)|ConditionalRequestConflict|OperationAborted|SlowDown"
        "|InternalError|ServiceUnavailable",
        f"the server is overloaded or out of order, also after repetitions; {_AGAIN} later",
        TransientError,
    ),
    _kind(
        "invalid path",
        "an object there has a name that cannot be used{said}; rename or remove it with the "
        "provider's tools",
    ),
    _kind(
        "MissingEtag|MissingLastModified|InvalidListResponse|invalid list response"
        "|InvalidDeleteObjectsResponse|DeleteObjects response",
        "the server does not answer as an object store does (a proxy or a login page in between?); "
        "check {endpoints}",
    ),
    _kind(
        "body error|kind: Interrupted|kind: Decode|NoContentRange|NotPartial|Content-Range"
        "|IncompleteMessage|ConnectionReset|sending request|UnexpectedEof",
        f"the answer was cut off; check the network and {_AGAIN}",
        TransientError,
    ),
    _kind(
        r"status code: 4\d\d",
        "the server does not accept the request{said}",
    ),
)
_OTHER = _kind("", f"no answer that can be used{{said}}; {_AGAIN}", TransientError)


def remote_error(
    error: Exception, provider: Provider, endpoint: str, *, where: str, doing: str
) -> EngineError:
    """Say what went wrong with a request, in one line.

    Args:
        error: What obstore raised.
        provider: Whose server it is.
        endpoint: Its address; empty for the provider's own.
        where: URL of the object.
        doing: What was done with it: read, list, write, delete or copy.

    Returns:
        InputError if somebody must change something, TransientError if it may work later.
    """
    text = str(error)
    if isinstance(error, UnauthenticatedError):
        text += " status code: 401"
    elif isinstance(error, PermissionDeniedError):
        text += " status code: 403"
    kind = next((each for each in _KINDS if each.pattern.search(text)), _OTHER)
    words = kind.words.format(
        credentials=provider.credentials,
        bucket=provider.bucket,
        endpoints=f"the address {endpoint}" if endpoint else provider.address,
        allow_http=provider.allow_http or "its variable",
        region=_region(text),
        doing=doing,
        profiles=" (profiles in ~/.aws are not read)" if provider.name == "S3" else "",
        said=_said(text),
    )
    found = ", ".join(_found(text))
    return kind.error(f"cannot {doing} {where}{f' ({found})' if found else ''}: {words}")


def is_about_bucket(error: Exception) -> bool:
    """Whether the bucket is missing, and not an object in it."""
    return bool(_KINDS[1].pattern.search(str(error)))


def is_beyond_end(error: Exception) -> bool:
    """Whether a range was asked for that begins behind the last byte of an object."""
    return bool(_BEYOND.search(str(error)))


def _found(text: str) -> list[str]:
    status, code = _STATUS.search(text), _CODE.search(text)
    found = [] if status is None else [status[1]]
    if code is not None:
        found.append(next(group for group in code.groups() if group))
    return found


def _region(text: str) -> str:
    found = _REGION.search(text)
    return "" if found is None else f", {found[1] or found[2]}"


def _said(text: str) -> str:
    said = _SAID.search(text)
    line = said[1] if said else text.partition("\n")[0]
    return f" ({redacted(' '.join(line.split()))[:200]})"
