"""An article -> an HTML page with all that surrounds prose on the web."""

from html import escape
from random import Random

from gptwo.demo.prose import Article

SECTIONS = ("Home", "Archive", "Politics", "Letters", "Weather", "Markets", "Subscribe", "About us")
COOKIES = (
    "We and our partners use cookies to improve your experience. By clicking accept you agree.",
    "This site uses cookies. Manage your preferences or accept all of them to go on reading.",
)
ADVERTS = (
    "Advertisement: Walking shoes, now 30% off until Sunday.",
    "Sponsored: Ten savings banks compared. See the list.",
    "Advertisement: The harmonica course that fits into your lunch break.",
)
COMMENTS = (
    "First! Also, does the print edition have this too?",
    "I do not agree with the third paragraph at all, but well put.",
    "My grandfather used to read these aloud at dinner.",
    "Could the editors please fix the link in the sidebar?",
    "Thanks for keeping the archive open.",
    "Shared this with my whole class today.",
)
FOOTER = "All rights reserved. Contact the editors. Terms of use. Privacy. Sitemap."


def article_page(article: Article, host: str, template: int, rng: Random) -> str:
    """One page in one of four site designs; the same arguments give the same page."""
    body = "\n".join(f"<p>{escape(p, quote=False)}</p>" for p in article.paragraphs)
    title = escape(article.title)
    around = _surroundings(host, rng)
    return _DESIGNS[template % len(_DESIGNS)].format(title=title, body=body, host=host, **around)


def _surroundings(host: str, rng: Random) -> dict[str, str]:
    links = "".join(f'<li><a href="/{s.lower()}">{s}</a></li>' for s in SECTIONS)
    related = "".join(
        f'<li><a href="/story/{rng.randrange(9999)}">Related story {rng.randrange(9999)}</a></li>'
        for _ in range(6)
    )
    comments = "".join(
        f'<div class="comment"><b>reader{rng.randrange(999)}</b> <p>{escape(text)}</p></div>'
        for text in rng.sample(COMMENTS, 3)
    )
    return {
        "nav": f'<ul class="menu">{links}</ul>',
        "related": f"<h3>Related</h3><ul>{related}</ul>",
        "comments": f"<h3>Comments (3)</h3>{comments}",
        "cookie": f'<div class="cookie-banner" role="dialog">{rng.choice(COOKIES)} '
        "<button>Accept</button></div>",
        "advert": f'<div class="ad advert">{rng.choice(ADVERTS)}</div>',
        "footer": f"{FOOTER} {host}",
    }


def document(title: str, body: str) -> str:
    """A bare page."""
    return (
        f"<!doctype html><html><head><title>{escape(title)}</title></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>"
    )


def link_list(rng: Random) -> str:
    """A page that is nothing but links."""
    rows = "".join(
        f'<li><a href="/go/{rng.randrange(99999)}">Item {rng.randrange(99999)}</a></li>'
        for _ in range(80)
    )
    return document("Links of the week", f"<ul>{rows}</ul>")


LOREM = (
    "Lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut "
    "labore et dolore magna aliqua."
)


def thin(article: Article) -> str:
    """A teaser: the first few words and nothing more."""
    words = " ".join(article.paragraphs[0].split()[:25])
    return document(article.title, f"<article><p>{escape(words)} ... read more</p></article>")


FOREIGN = {
    "fr": (
        "La rivière traverse la vieille ville avant de rejoindre la plaine.",
        "Les habitants se souviennent encore de la grande inondation du printemps.",
        "Chaque matin, les marchands installent leurs étals sur la place.",
        "Le conseil municipal a voté la réparation du pont de pierre.",
        "Personne ne sait pourquoi la cloche a cessé de sonner cette nuit-là.",
        "On raconte que le fondateur de la bibliothèque ne savait pas lire.",
        "Les enfants apprennent à nager dans le lac derrière l'école.",
    ),
    "de": (
        "Der Fluss fließt durch die alte Stadt, bevor er die Ebene erreicht.",
        "Die Bewohner erinnern sich noch an das große Hochwasser im Frühling.",
        "Jeden Morgen bauen die Händler ihre Stände auf dem Marktplatz auf.",
        "Der Gemeinderat hat beschlossen, die steinerne Brücke zu erneuern.",
        "Niemand weiß, warum die Glocke in jener Nacht nicht mehr läutete.",
        "Man erzählt, der Gründer der Bücherei habe selbst nicht lesen können.",
        "Die Kinder lernen im See hinter der Schule schwimmen.",
    ),
    "es": (
        "El río atraviesa la ciudad vieja antes de llegar a la llanura.",
        "Los vecinos recuerdan todavía la gran inundación de aquella primavera.",
        "Cada mañana los comerciantes montan sus puestos en la plaza.",
        "El ayuntamiento ha aprobado la reparación del puente de piedra.",
        "Nadie sabe por qué la campana dejó de sonar aquella noche.",
        "Se cuenta que el fundador de la biblioteca no sabía leer.",
        "Los niños aprenden a nadar en el lago que hay detrás de la escuela.",
    ),
}


def foreign_page(language: str, number: int, rng: Random) -> str:
    """A page in another language, several paragraphs long."""
    paragraphs = "".join(
        f"<p>{' '.join(rng.choices(FOREIGN[language], k=12))}</p>" for _ in range(8)
    )
    return document(f"{language} {number}", f"<article>{paragraphs}</article>")


_DESIGNS = (
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title} | {host}</title>
<style>body{{font-family:serif}}</style><script>var ready = 1;</script></head><body>
{cookie}<header><a href="/">{host}</a><nav>{nav}</nav></header>
<main><article><h1>{title}</h1>
{body}
</article>{advert}<section class="comments">{comments}</section></main>
<aside class="sidebar">{related}</aside><footer>{footer}</footer></body></html>""",
    """<html><head><title>{title}</title></head><body><div id="wrap"><div id="top">{nav}</div>
<div id="left">{related}{advert}</div><div id="content" class="post"><h2>{title}</h2>
<div class="entry-content">
{body}
</div></div><div id="comments">{comments}</div><div id="footer">{footer}</div></div>{cookie}
</body></html>""",
    """<!doctype html><html lang="en"><head><title>{title} - {host}</title></head><body>
<div class="page"><div class="navbar">{nav}</div><div class="story-body"><h1>{title}</h1>
{body}
</div><div class="related-links">{related}</div><div class="promo">{advert}</div>
<div class="comment-list">{comments}</div></div><div class="site-footer">{footer}</div>
{cookie}</body></html>""",
    """<html><head><title>{title}</title></head><body><table width="100%"><tr><td colspan="2">{nav}
</td></tr><tr><td valign="top">{related}{advert}</td><td class="article"><h1>{title}</h1>
{body}
</td></tr><tr><td colspan="2">{footer}</td></tr></table>{cookie}</body></html>""",
)
