"""Videos that a request names by URI: `https://` and `s3://`, from places that the operator has allowed.

- Nothing is allowed by default: `UriRules` lists hosts, buckets, and what else may be.
- A host's name is resolved once. Each address has to be public, or in a network that the rules list, and the connection
  goes to one of those addresses, while TLS checks the certificate against the name: a second answer of the name server
  cannot lead elsewhere. A redirect is followed by hand, and all is checked again.
- No proxy of the environment (HTTPS_PROXY) is used over HTTP: it would resolve the name itself, and reach what it
  likes. `s3://` goes through `ivcp.storage`, with the server's own credentials, endpoint and proxy.
- Cookies, credentials in URIs and encoded bodies (gzip) are not taken; nothing is kept between two fetches.
"""

from ivcp.serving.remote_videos.errors import UriCode, UriError
from ivcp.serving.remote_videos.fetching import fetch
from ivcp.serving.remote_videos.rules import UriRules

__all__ = ["UriCode", "UriError", "UriRules", "fetch"]
