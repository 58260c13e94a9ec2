/* What the HTML parser knows of elements and attributes; gptwo/corpus/extraction/html_tags.py has the same. */
#include <stdint.h>

/* A node's tag is TAG_text, TAG_other for an element that is not in this list, or TAG_name. */
#define HTML_TAGS(X)                                                                               \
    X(html) X(head) X(body) X(title) X(meta) X(link) X(base) X(script) X(style) X(noscript)        \
    X(template) X(header) X(footer) X(nav) X(aside) X(main) X(article) X(section) X(search)        \
    X(hgroup) X(address) X(div) X(p) X(h1) X(h2) X(h3) X(h4) X(h5) X(h6) X(ul) X(ol) X(menu)       \
    X(dir) X(li) X(dl) X(dt) X(dd) X(blockquote) X(pre) X(listing) X(xmp) X(plaintext) X(figure)   \
    X(figcaption) X(picture) X(hr) X(br) X(wbr) X(center) X(details) X(summary) X(dialog)          \
    X(table) X(caption) X(colgroup) X(col) X(thead) X(tbody) X(tfoot) X(tr) X(td) X(th) X(form)    \
    X(fieldset) X(legend) X(label) X(input) X(button) X(select) X(datalist) X(optgroup)            \
    X(option) X(textarea) X(output) X(progress) X(meter) X(keygen) X(a) X(b) X(strong) X(i)        \
    X(em) X(u) X(s) X(strike) X(del) X(ins) X(big) X(small) X(font) X(nobr) X(tt) X(code) X(kbd)   \
    X(samp) X(var) X(sub) X(sup) X(q) X(cite) X(abbr) X(acronym) X(dfn) X(mark) X(time) X(data)    \
    X(span) X(bdi) X(bdo) X(ruby) X(rb) X(rt) X(rtc) X(rp) X(slot) X(img) X(image) X(map)          \
    X(area) X(iframe) X(embed) X(object) X(param) X(applet) X(audio) X(video) X(source) X(track)   \
    X(canvas) X(svg) X(math) X(foreignobject) X(frameset) X(frame) X(noframes) X(noembed)          \
    X(marquee) X(basefont) X(bgsound)

/* The attributes that are kept; of those from href on there are flags only. */
#define HTML_ATTRIBUTES(X)                                                                         \
    X(class, "class") X(id, "id") X(role, "role") X(itemprop, "itemprop") X(rel, "rel")            \
    X(lang, "lang") X(href, "href") X(style, "style") X(hidden, "hidden")                          \
    X(aria_hidden, "aria-hidden")

#define X(name) TAG_##name,
enum { TAG_text, TAG_other, HTML_TAGS(X) TAGS };
#undef X
#define X(name) #name,
static const char *const TAG_NAME[TAGS] = {"#text", "#other", HTML_TAGS(X)};
#undef X
#define X(name, text) ATTRIBUTE_##name,
enum { HTML_ATTRIBUTES(X) ATTRIBUTES };
#undef X
#define X(name, text) text,
static const char *const ATTRIBUTE_NAME[ATTRIBUTES] = {HTML_ATTRIBUTES(X)};
#undef X

/* What the standard's tree construction asks of an element. */
enum {
    VOID = 1,           /* has no content and no end tag */
    RAW = 2,            /* its content is text up to its end tag */
    RAW_ENTITIES = 4,   /* the same, with named and numbered characters */
    SPECIAL = 8,        /* no end tag of a phrase reaches beyond it */
    PLAIN = 16,         /* special too, yet an item's end tag reaches beyond it */
    SCOPE = 32,         /* no end tag of a block reaches beyond it */
    LIST = 64,          /* nor one of <li> */
    BUTTON = 128,       /* nor one of <p> */
    TABLE = 256,        /* nor one of a part of a table */
    ROWS = 512,         /* holds rows */
    ROW = 1024,         /* holds cells */
    CELL = 2048,
    TABLE_PART = 4096,  /* begins only inside a table, at its place there */
    HEADING = 8192,
    DEFINITION = 1 << 14,
    BLOCK = 1 << 15,    /* its end tag ends all that is open inside it */
    CLOSES_P = 1 << 16, /* ends an open paragraph where it begins */
    FADES = 1 << 17,    /* becomes TAG_other when its end tag comes inside a block begun in it */
    IN_HEAD = 1 << 18,
    NOT_SVG = 1 << 19,  /* its start ends <svg> or <math> */
    RUBY = 1 << 20,
};

static const struct {
    uint32_t property;
    const char *tags;
} TAGS_WITH[] = {
    {VOID, "area base basefont bgsound br col embed frame hr image img input keygen link meta "
           "param source track wbr"},
    {RAW, "iframe noembed noframes plaintext script style xmp"},
    {RAW_ENTITIES, "textarea title"},
    {SPECIAL, "applet area article aside base basefont bgsound blockquote body br button "
              "caption center col colgroup dd details dir dl dt embed fieldset figcaption "
              "figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html "
              "iframe img input keygen li link listing main marquee menu meta nav noembed "
              "noframes noscript object ol param plaintext pre script search section select "
              "source style summary table tbody td template textarea tfoot th thead title tr "
              "track ul wbr xmp"},
    {PLAIN, "address div p"},
    {SCOPE, "applet caption foreignobject html marquee object table td template th"},
    {LIST, "ol ul"},
    {BUTTON, "button"},
    {TABLE, "table template"},
    {ROWS, "tbody tfoot thead"},
    {ROW, "tr"},
    {CELL, "td th"},
    {TABLE_PART, "caption col colgroup tbody td tfoot th thead tr"},
    {HEADING, "h1 h2 h3 h4 h5 h6"},
    {DEFINITION, "dd dt"},
    {BLOCK, "address applet article aside blockquote button center dd details dialog dir div dl "
            "dt fieldset figcaption figure footer header hgroup li listing main marquee menu nav "
            "noscript object ol pre search section select summary ul"},
    {CLOSES_P, "address article aside blockquote center dd details dialog dir div dl dt "
               "fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr li "
               "listing main menu nav ol p plaintext pre search section summary table ul xmp"},
    {FADES, "a b big code em font form i nobr s small strike strong tt u"},
    {IN_HEAD, "base basefont bgsound link meta noframes noscript script style template title"},
    {NOT_SVG, "b big blockquote body br center code dd div dl dt em embed h1 h2 h3 h4 h5 h6 "
              "head hr i img li listing menu meta nobr ol p pre ruby s small span strike strong "
              "sub sup table tt u ul var"},
    {RUBY, "rb rp rt rtc"},
};
