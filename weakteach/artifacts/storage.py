"""Opening a storage by its URL."""

from urllib.parse import parse_qs, urlsplit

from pyarrow import fs

from weakteach.artifacts.errors import StorageError

# The waits between attempts double, from 25 ms on: failures of a minute do no harm.
ATTEMPTS = 12
SECRET_OPTIONS = {
    "access_key", "secret_key", "session_token", "account_key", "client_secret", "sig"
}  # fmt: skip
# Of their URLs, what stands where others hold a user is the container.
CONTAINER_FIRST = ("abfs", "abfss")


def open_storage(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a storage and the storage's path on it.

    Raises StorageError if it cannot be reached, or if the URL holds a secret.
    """
    if "://" in url:
        parts = urlsplit(url)
        user = parts.username and parts.scheme not in CONTAINER_FIRST
        if user or parts.password or SECRET_OPTIONS & set(parse_qs(parts.query)):
            raise StorageError(
                f"The URL of the storage {parts.scheme}://…{parts.path} holds a user or a key, and "
                "would be written into records and reports: give them by environment variables, "
                "such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AZURE_CLIENT_SECRET"
            )
    try:
        filesystem, root = fs.FileSystem.from_uri(url)
        return _patient(filesystem), root.rstrip("/")
    except (OSError, ValueError) as error:
        raise StorageError(f"Storage {url} cannot be used: {error}") from error


def _patient(filesystem: fs.FileSystem) -> fs.FileSystem:
    """If the file system is S3, let it try a request more often than any URL can ask for: by
    default pyarrow gives up after six seconds. Also let it check whether a folder exists before it
    creates one, so that a store with read access alone can be read.

    The retry strategy "standard" would not do: it has a budget of about a hundred faults, which
    pyarrow never fills up again, so a study of hours would end at the first fault after those.
    """
    if not isinstance(filesystem, fs.S3FileSystem):
        return filesystem
    _, (options,) = filesystem.__reduce__()  # the options by which it is pickled
    more = {
        "retry_strategy": fs.AwsDefaultS3RetryStrategy(max_attempts=ATTEMPTS),
        "check_directory_existence_before_creation": True,
    }
    return fs.S3FileSystem(**{**_given(options), **more})


def _given(options: dict[str, object]) -> dict[str, object]:
    """The options that are set. An empty string, -1 or None stands for one that is not."""
    unset = {name for name, value in options.items() if value in ("", -1.0, None)}
    if not options["role_arn"]:
        unset.add("load_frequency")
    if not options["proxy_options"]["host"]:  # type: ignore[index]
        unset.add("proxy_options")
    return {name: value for name, value in options.items() if name not in unset}
