"""Forty texts that would do something if anybody took them for more than text.

Those that are scripts leave ``data-pwned`` on the page's first element.
"""

RUN = "document.documentElement.dataset.pwned=1"
FAR = "http://evil.example"

HOSTILE = [
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"</SCRIPT ><sCrIpT>{RUN}</sCrIpT>",
    f"<img src=x onerror={RUN}>",
    f"<img src={FAR}/a.png>",
    f"<svg onload={RUN}>",
    f'"><svg/onload={RUN}>',
    f"'><img src=x onerror={RUN}>",
    f"' onmouseover='{RUN}",
    f'" autofocus onfocus="{RUN}',
    f"<a href='javascript:{RUN}'>go</a>",
    f'<a href="{FAR}">go</a>',
    f"javascript:{RUN}",
    f"data:text/html,<script>{RUN}</script>",
    f"<iframe src={FAR}></iframe>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f"<object data={FAR}></object><embed src={FAR}>",
    f"<link rel=stylesheet href={FAR}/a.css>",
    f"<style>@import '{FAR}/b.css'; body {{display: none}}</style>",
    f"</style><script>{RUN}</script>",
    f"</title><script>{RUN}</script>",
    f"</textarea></noscript><script>{RUN}</script>",
    f"<meta http-equiv=refresh content='0;url={FAR}'>",
    f"<base href={FAR}/>",
    f"<form action={FAR}><input autofocus onfocus={RUN}></form>",
    f"--><script>{RUN}</script><!--",
    f"]]><script>{RUN}</script>",
    f"<math><mtext></p><style><img src=x onerror={RUN}>",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
    f"\\u003cscript\\u003e{RUN}\\u003c/script\\u003e",
    f"%{{x}} %{{customdata[0]}} ${{{RUN}}} {{{{{RUN}}}}} {{0}}",
    "__proto__",
    "constructor",
    f'=HYPERLINK("{FAR}")',
    "+1+1|cmd",
    "-2+3",
    "@SUM(1)",
    "\u202egnp.exe\u2066\u200f",
    f"line\u2028one\u2029two\nthree\rfour\x00\x1b[2J\ttab<script>{RUN}</script>",
    "A" * 20_000 + f"<img src=x onerror={RUN}>",
]
assert len(HOSTILE) == len(set(HOSTILE)) == 40
