"""A mail's HTML and text side by side, as one page that needs nothing beside it."""

import base64
from email import message_from_bytes
from html import escape
from string import Template
from urllib.parse import quote

from notifier.dashboard.mail import read_mail

# The frame takes the policy over: nothing runs in it, and only what a mail shows by itself is loaded.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline' https:; img-src data: http: https:; font-src data: https:"
)
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$subject</title>
<style>
:root { color-scheme: light dark; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; }
header { padding: 1rem 1.5rem; }
h1 { margin: 0 0 .5rem; font-size: 1.25rem; }
h2 { margin: 0 0 .5rem; font-size: .875rem; font-weight: 600; }
table { border-spacing: 0; font-size: .875rem; }
th { padding: 0 1rem 0 0; font-weight: 400; opacity: .7; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
main { display: flex; flex-wrap: wrap; gap: 1.5rem; padding: 0 1.5rem 1.5rem; }
section { flex: 1 1 20rem; min-width: 0; }
section.html { flex-basis: 40rem; }
iframe, pre { box-sizing: border-box; width: 100%; height: 75vh; margin: 0; border: 1px solid #8888; border-radius: 6px; }
iframe { background: #fff; }
pre { padding: 1rem; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
</style>
</head>
<body>
<header>
<h1>$subject</h1>
<table>
$headers
</table>
</header>
<main>
$parts
</main>
</body>
</html>
""")  # noqa: E501 - a line of CSS
_ROW = '<tr><th scope="row">{}</th><td>{}</td></tr>'
_HTML = '<section class="html"><h2>HTML</h2><iframe title="HTML" sandbox="{}" srcdoc="{}"></iframe></section>'
_TEXT = "<section><h2>Text</h2><pre>{}</pre></section>"
_LINKS_WORK = "allow-popups allow-popups-to-escape-sandbox"


def page(mail: bytes) -> str:
    """Make the page of a mail's bytes; the images that it brings along are shown in their places."""
    read = read_mail(mail)
    parts = []
    if read.html is not None:
        parts.append(_HTML.format(_LINKS_WORK, escape(_with_images(read.html, mail))))
    if read.text is not None:
        parts.append(_TEXT.format(escape(read.text)))
    rows = [*read.headers, *(("Attached", name) for name in read.attachments)]
    return _PAGE.substitute(
        policy=escape(_POLICY),
        subject=escape(read.subject),
        headers="\n".join(_ROW.format(escape(name), escape(value)) for name, value in rows),
        parts="\n".join(parts),
    )


def _with_images(html: str, mail: bytes) -> str:
    """Put what the HTML means by `cid:` (RFC 2392) into it."""
    for part in message_from_bytes(mail).walk():
        name = str(part.get("Content-ID", "")).strip("<> ")
        content = part.get_payload(decode=True)
        if name and isinstance(content, bytes):
            data = f"data:{part.get_content_type()};base64,{base64.b64encode(content).decode()}"
            html = html.replace(f"cid:{name}", data).replace(f"cid:{quote(name)}", data)
    return html
