"""What the HTML parser knows of elements and attributes (the standard's lists)."""

from enum import IntFlag

# By number; 0 is a text, 1 an element that is not in this list.
_TAGS = (
    "#text #other html head body title meta link base script style noscript template header "
    "footer nav aside main article section search hgroup address div p h1 h2 h3 h4 h5 h6 ul ol "
    "menu dir li dl dt dd blockquote pre listing xmp plaintext figure figcaption picture hr br "
    "wbr center details summary dialog table caption colgroup col thead tbody tfoot tr td th "
    "form fieldset legend label input button select datalist optgroup option textarea output "
    "progress meter keygen a b strong i em u s strike del ins big small font nobr tt code kbd "
    "samp var sub sup q cite abbr acronym dfn mark time data span bdi bdo ruby rb rt rtc rp "
    "slot img image map area iframe embed object param applet audio video source track canvas "
    "svg math foreignobject frameset frame noframes noembed marquee basefont bgsound"
)
TAGS = _TAGS.split()
TAG = {name: number for number, name in enumerate(TAGS)}

ATTRIBUTES = frozenset(("class", "id", "role", "itemprop", "rel", "lang"))  # the ones kept


class Flag(IntFlag):
    """What the attributes of an element say of it."""

    HIDDEN = 1  # has the attribute hidden
    ARIA_HIDDEN = 2  # aria-hidden="true"
    NOT_SHOWN = 4  # style says display: none or visibility: hidden
    LINK = 8  # has href
    LOCAL_LINK = 16  # which begins with # or javascript:


_H = "h1 h2 h3 h4 h5 h6"

# What the standard's tree construction asks of an element, by bit, and the elements it holds for.
PROPERTIES = {
    "VOID": "area base basefont bgsound br col embed frame hr image img input keygen link meta "
    "param source track wbr",  # has no content and no end tag
    "RAW": "iframe noembed noframes plaintext script style xmp",  # content is text up to its end
    "RAW_ENTITIES": "textarea title",  # the same, with named and numbered characters
    # No end tag of a phrase reaches beyond these,
    "SPECIAL": "applet area article aside base basefont bgsound blockquote body br button caption "
    "center col colgroup dd details dir dl dt embed fieldset figcaption figure footer form frame "
    f"frameset {_H} head header hgroup hr html iframe img input keygen li link listing main "
    "marquee menu meta nav noembed noframes noscript object ol param plaintext pre script search "
    "section select source style summary table tbody td template textarea tfoot th thead title tr "
    "track ul wbr xmp",
    "PLAIN": "address div p",  # nor these, yet an item's end tag does.
    "SCOPE": "applet caption foreignobject html marquee object table td template th",  # of a block
    "LIST": "ol ul",  # nor one of <li>
    "BUTTON": "button",  # nor one of <p>
    "TABLE": "table template",  # nor one of a part of a table
    "ROWS": "tbody tfoot thead",
    "ROW": "tr",
    "CELL": "td th",
    "TABLE_PART": "caption col colgroup tbody td tfoot th thead tr",  # begins only in a table
    "HEADING": _H,
    "DEFINITION": "dd dt",
    # An end tag of these ends all that is open inside.
    "BLOCK": "address applet article aside blockquote button center dd details dialog dir div dl "
    "dt fieldset figcaption figure footer header hgroup li listing main marquee menu nav noscript "
    "object ol pre search section select summary ul",
    # These end an open paragraph where they begin.
    "CLOSES_P": "address article aside blockquote center dd details dialog dir div dl dt fieldset "
    f"figcaption figure footer form {_H} header hgroup hr li listing main menu nav ol p plaintext "
    "pre search section summary table ul xmp",
    # These become #other when their end tag comes inside a block begun in them.
    "FADES": "a b big code em font form i nobr s small strike strong tt u",
    "IN_HEAD": "base basefont bgsound link meta noframes noscript script style template title",
    # These end <svg> or <math>.
    "NOT_SVG": f"b big blockquote body br center code dd div dl dt em embed {_H} head hr i img li "
    "listing menu meta nobr ol p pre ruby s small span strike strong sub sup table tt u ul var",
    "RUBY": "rb rp rt rtc",
}
BIT = {name: 1 << number for number, name in enumerate(PROPERTIES)}
PROPERTY = [
    sum(BIT[name] for name, tags in PROPERTIES.items() if tag in tags.split()) for tag in TAGS
]
