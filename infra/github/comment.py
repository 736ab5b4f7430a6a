"""Post a summary as one comment of a pull request, or replace the one that an earlier run posted.

Used by `action.yml`; needs Python alone. The first line of the summary, a Markdown comment that no reader sees, tells
whose comment it is: of those that the same account wrote, the last with the same first line is replaced.

::

    GITHUB_TOKEN=... python comment.py summary.md --repository ORG/NAME --pull-request 7
"""

import argparse
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONGEST = 65_000
"""Characters; GitHub takes 65,536."""
PER_PAGE = 100
TIMEOUT_S = 30.0


class Api:
    """GitHub's REST API, for one repository."""

    def __init__(self, url: str, repository: str, token: str) -> None:
        self._base = f"{url.rstrip('/')}/repos/{repository}"
        self._headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "User-Agent": "tunegate",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    def call(self, method: str, path: str, body: dict[str, str] | None = None) -> Any:
        """Send a request; return the JSON of its answer.

        Raises:
            urllib.error.URLError: it was refused, or no one answers.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._base}{path}", data, self._headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return json.load(answer)

    def comments(self, number: int) -> Iterator[dict[str, Any]]:
        """Yield all comments of a pull request, oldest first."""
        page = 1
        while True:
            found = self.call("GET", f"/issues/{number}/comments?per_page={PER_PAGE}&page={page}")
            yield from found
            if len(found) < PER_PAGE:
                return
            page += 1


def post(api: Api, number: int, text: str, *, author: str) -> str:
    """Post or replace the comment; return its address.

    Args:
        author: Login of the account that the token is of; comments of others are left alone.
    """
    marker = text.partition("\n")[0]
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}\n\n(cut: the whole summary is in the run's log)\n"
    mine = [
        comment["id"]
        for comment in api.comments(number)
        # The account of a comment may be gone.
        if (comment["user"] or {}).get("login") == author and comment["body"].partition("\n")[0].strip() == marker
    ]
    if mine:
        answer = api.call("PATCH", f"/issues/comments/{mine[-1]}", {"body": text})
    else:
        answer = api.call("POST", f"/issues/{number}/comments", {"body": text})
    return str(answer["html_url"])


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def main() -> int:
    """Read arguments and environment; return the exit code."""
    parser = argparse.ArgumentParser(description="Post a summary as one comment of a pull request.")
    parser.add_argument("summary", type=Path)
    parser.add_argument("--repository", required=True, help="ORG/NAME")
    parser.add_argument("--pull-request", type=int, required=True)
    parser.add_argument("--author", default="github-actions[bot]", help="account of the token")
    given = parser.parse_args()
    text = given.summary.read_text(encoding="utf-8")
    if not text.startswith("<!-- tunegate: "):
        _say(f"{given.summary} is no summary of `tunegate gate check --markdown`")
        return 2
    token = os.environ.get("GITHUB_TOKEN", "")
    if not token:
        _say("GITHUB_TOKEN is not set")
        return 2
    api = Api(os.environ.get("GITHUB_API_URL", "https://api.github.com"), given.repository, token)
    try:
        sys.stdout.write(f"{post(api, given.pull_request, text, author=given.author)}\n")
    except urllib.error.HTTPError as error:
        hint = ""
        if error.code in (401, 403):
            hint = "; the job needs `permissions: {pull-requests: write}`, which pull requests from forks do not get"
        _say(f"GitHub answered {error.code} to {error.url}{hint}")
        return 1
    except (urllib.error.URLError, TimeoutError) as error:
        _say(f"GitHub does not answer: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
