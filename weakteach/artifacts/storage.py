"""Opening a storage by its URL."""

from urllib.parse import parse_qs, urlsplit

from pyarrow import fs

from weakteach.artifacts.errors import StorageError

# Waits double from 25 ms on: an object store that is out of order for a minute does no harm.
ATTEMPTS = 12
SECRET_OPTIONS = ("access_key", "secret_key", "session_token")


def open_storage(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a storage and the storage's path on it.

    Raises StorageError if it cannot be reached, or if the URL holds a secret.
    """
    if "://" in url:
        parts = urlsplit(url)
        if parts.username or parts.password or set(parse_qs(parts.query)) & set(SECRET_OPTIONS):
            raise StorageError(
                f"The URL of the storage {parts.scheme}://…{parts.path} holds a user or a key, and "
                "would be written into records and reports: give them by environment variables, "
                "such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
    try:
        filesystem, root = fs.FileSystem.from_uri(url)
        return _patient(filesystem), root.rstrip("/")
    except (OSError, ValueError) as error:
        raise StorageError(f"Storage {url} cannot be used: {error}") from error


def _patient(filesystem: fs.FileSystem) -> fs.FileSystem:
    """The file system, with more attempts at a request to S3 than a URL can ask for: by default
    they end after six seconds. A folder that is there is not created again, so that a store that
    may only be read can be.

    Not the other strategy, "standard": it has retries for a hundred faults in all, which pyarrow
    never gives back, so that a study of hours ends at the first fault after those.
    """
    if not isinstance(filesystem, fs.S3FileSystem):
        return filesystem
    _, (options,) = filesystem.__reduce__()  # what it is pickled by
    more = {
        "retry_strategy": fs.AwsDefaultS3RetryStrategy(max_attempts=ATTEMPTS),
        "check_directory_existence_before_creation": True,
    }
    return fs.S3FileSystem(**{**_given(options), **more})


def _given(options: dict[str, object]) -> dict[str, object]:
    """Without what stands for nothing given."""
    unset = {name for name, value in options.items() if value in ("", -1.0, None)}
    if not options["role_arn"]:
        unset.add("load_frequency")
    if not options["proxy_options"]["host"]:  # type: ignore[index]
        unset.add("proxy_options")
    return {name: value for name, value in options.items() if name not in unset}
