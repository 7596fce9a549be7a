"""Links of pages hold in the site, where the top of the repository is beside docs/ and source is not there."""

import pytest

from tools.site import linked


@pytest.mark.parametrize(
    ("uri", "link", "expected"),
    [
        ("index.md", "[limits](docs/limits.md#rates)", "[limits](limits.md#rates)"),
        ("howto/rotate.md", "[map](../../ARCHITECTURE.md)", "[map](../architecture.md)"),
        ("howto/rotate.md", "[reasons](../reference/reasons.md#revoked)", "[reasons](../reference/reasons.md#revoked)"),
        ("audit.md", "[the record](../gateway/audit/record.py)", "the record (`gateway/audit/record.py`)"),
        ("sealing.md", "[examples/typescript](../examples/typescript)", "examples/typescript"),
        ("sealing.md", "[`protos/a.proto`](../protos/a.proto)", "<code>protos/a.proto</code>"),
        ("a.md", "[web](https://example.com/x) [here](#there)", "[web](https://example.com/x) [here](#there)"),
        ("a.md", "`[a](../gateway/app.py)`", "`[a](../gateway/app.py)`"),
        ("a.md", "```\n[a](../gateway/app.py)\n```", "```\n[a](../gateway/app.py)\n```"),
    ],
)
def test_a_link_leads_to_the_page_or_names_the_file(uri: str, link: str, expected: str) -> None:
    assert linked(link, uri) == expected
