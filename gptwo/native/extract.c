/* The main text of a page: the fast twin of gptwo/corpus/extraction/bulk.py, where the rules are explained and
   where each function here has its like. Linear in the page, nothing recurses, and what is made
   beside the tree of html.h and its lines is 17 bytes for each node. The GIL is released. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "lines.h"

enum { PARAGRAPH = 80, SENTENCE = 20, TITLE = 300, LABEL = 60 }; /* bytes */

#define PARTS                                                                                      \
    "comment kommentar coment respond footer =nav navi navbar =menu breadcrumb sidebar cookie "    \
    "consent related relacionad recommend newsletter subscri =share sharing popup overlay paywall "\
    "=login"
#define PIECES                                                                                     \
    "promo sponsor =ad =ads advert banner widget toolbar pagin =author byline =bio avatar =tag "   \
    "=tags =meta caption credit copyright disclaimer =print rating =category date timestamp "      \
    "trending popular follow =search =legal =rail"
#define TAGS_OF_PIECES "nav footer aside figcaption menu"

enum { NAMES_MOST = 63 };
static struct {
    const char *name;
    int size, whole;
} NAME[NAMES_MOST];
static int NAMES, NOT_SHOWN; /* of classes and ids; then come 5 tags, then this bit */
static uint64_t STARTING[26], PART_BITS, TAG_BIT[TAGS];

static const uint64_t POST = (uint64_t)1 << 63; /* not a name: a word of POSTS */

enum { FOREIGN = 1, INSIDE = 2, LINKS = 4, TEXTS = 8, SEEN = 16 }; /* of a node */

typedef struct {
    HtmlTree tree;
    Lines lines;
    uint64_t *names;      /* of each node, bits */
    uint8_t *is;          /* of each node */
    int32_t *sums, *more; /* of nodes before each, and of all */
    int32_t *kept;        /* lines */
    int32_t kept_count;
    uint8_t *out;
    int64_t used;
} Page;

/* ---- what lines and elements say ---- */

static int ends_sentence(const uint8_t *text, int32_t size) {
    uint8_t last = text[size - 1];
    if (last < 128) return strchr(".!?:\"')]", last) != NULL && last;
    if (size > 1 && text[size - 2] == 0xC2) return last == 0xBB;
    if (size < 3) return 0;
    uint32_t code = (uint32_t)text[size - 3] << 16 | (uint32_t)text[size - 2] << 8 | last;
    return code == 0xE280A6 || code == 0xE2809D || code == 0xE28099 || code == 0xE38082 ||
           code == 0xEFBC81 || code == 0xEFBC9F;
}

static int32_t value(const Page *page, const Line *line) {
    int64_t size = line->size, linked = line->linked, own = size - linked;
    if (own >= PARAGRAPH && linked * 2 < size) return (int32_t)(own - linked);
    if (size > SENTENCE && linked * 10 < size * 3 &&
        ends_sentence(page->lines.text + line->start, line->size))
        return line->size;
    return (int32_t)(-linked - linked / 2);
}

/* The bits of a word of letters, in any case. */
static uint64_t bits_of(const uint8_t *word, int64_t size) {
    uint64_t bits = 0;
    for (uint64_t some = STARTING[HTML_LOWER[*word] - 'a']; some; some &= some - 1) {
        int at = __builtin_ctzll(some);
        int fits = NAME[at].whole ? size == NAME[at].size : size >= NAME[at].size;
        if (fits && same_name(word, (const uint8_t *)NAME[at].name, NAME[at].size))
            bits |= (uint64_t)1 << at;
    }
    if (size == 6 && same_name(word, (const uint8_t *)"hentry", 6)) bits |= POST;
    if (size == 7 && same_name(word, (const uint8_t *)"publish", 7)) bits |= POST;
    return bits;
}

static inline int is_upper(uint8_t c) { return c >= 'A' && c <= 'Z'; }

/* Those of the words of a class or id, and of the parts of those in camel case. */
static uint64_t words_of(const uint8_t *at, const uint8_t *end) {
    uint64_t bits = 0;
    while (at < end) {
        if (!IS(*at, LETTER)) {
            at++;
            continue;
        }
        const uint8_t *from = at, *part = at;
        int upper = 0;
        for (; at < end && IS(*at, LETTER); at++) upper += is_upper(*at);
        bits |= bits_of(from, at - from);
        if (!upper || upper == at - from) continue;
        for (const uint8_t *c = from + 1; c <= at; c++) {
            int starts = c == at || (is_upper(*c) && (!is_upper(c[-1]) ||
                                                      (c + 1 < at && !is_upper(c[1]))));
            if (!starts) continue;
            if (c - part > 3) bits |= bits_of(part, c - part);
            part = c;
        }
    }
    return bits;
}

static uint64_t words_in(const HtmlTree *tree, const HtmlNode *node, int name) {
    const HtmlAttribute *at = html_attribute(tree, node, name);
    if (!at) return 0;
    const uint8_t *from = html_bytes(tree, at->start);
    return words_of(from, from + at->size);
}

static int role_is(const HtmlTree *tree, const HtmlNode *node, const char *role) {
    const HtmlAttribute *at = html_attribute(tree, node, ATTRIBUTE_role);
    return at && at->size == (int32_t)strlen(role) &&
           same_name(html_bytes(tree, at->start), (const uint8_t *)role, at->size);
}

static uint64_t names_of(const HtmlTree *tree, const HtmlNode *node) {
    int tag = node->tag;
    if (tag == TAG_text || tag == TAG_html || tag == TAG_head || tag == TAG_body) return 0;
    uint64_t bits = TAG_BIT[tag];
    if (node->flags & (HTML_HIDDEN | HTML_NOT_SHOWN)) bits |= (uint64_t)1 << NOT_SHOWN;
    if (!node->attributes) return bits;
    if (role_is(tree, node, "navigation")) bits |= TAG_BIT[TAG_nav];
    if (role_is(tree, node, "contentinfo")) bits |= TAG_BIT[TAG_footer];
    if (role_is(tree, node, "complementary")) bits |= TAG_BIT[TAG_aside];
    if (TAG_IS[tag] & ARTICLE) return bits;
    uint64_t found = words_in(tree, node, ATTRIBUTE_class);
    if (found & POST) return bits;
    return bits | found | (words_in(tree, node, ATTRIBUTE_id) & ~POST);
}

static int says_article(const HtmlTree *tree, const HtmlNode *node) {
    if (TAG_IS[node->tag] & ARTICLE) return 1;
    if (!node->attributes) return 0;
    if (role_is(tree, node, "main")) return 1;
    const HtmlAttribute *at = html_attribute(tree, node, ATTRIBUTE_itemprop);
    const uint8_t *from = at ? html_bytes(tree, at->start) : NULL;
    for (int32_t i = 0; at && i + 11 <= at->size; i++)
        if (same_name(from + i, (const uint8_t *)"articlebody", 11)) return 1;
    return 0;
}

/* ---- where the article is ---- */

enum { PROSE, SCORE, SIZE, LINKED };

/* Make `sums` those of a number of each line. */
static void total(const Page *page, int32_t *sums, int what) {
    int32_t count = page->tree.count, sum = 0;
    memset(sums, 0, ((size_t)count + 1) * sizeof *sums);
    for (int32_t i = 0; i < page->lines.count; i++) {
        const Line *line = page->lines.lines + i;
        int32_t number = what == SIZE ? line->size : what == LINKED ? line->linked
                                                                    : value(page, line);
        if (what == PROSE && number < 0) number = 0;
        if (what == SCORE && (page->is[line->node] & FOREIGN)) number = 0;
        sums[line->node] += number;
    }
    for (int32_t i = 0; i <= count; i++) {
        int32_t own = sums[i];
        sums[i] = sum;
        sum += own;
    }
}

static inline int64_t in(const Page *page, const int32_t *sums, int32_t at) {
    return sums[page->tree.nodes[at].last] - sums[at];
}

static void find_foreign(Page *page) {
    const HtmlNode *nodes = page->tree.nodes;
    int64_t held[64] = {0}, every = in(page, page->sums, 0);
    int32_t until[64] = {0};
    uint64_t layout = 0;
    for (int32_t at = 0; at < page->tree.count; at++) {
        page->names[at] = names_of(&page->tree, nodes + at);
        for (uint64_t some = page->names[at]; some; some &= some - 1) {
            int bit = __builtin_ctzll(some);
            if (at < until[bit]) continue;
            held[bit] += in(page, page->sums, at);
            until[bit] = nodes[at].last;
        }
    }
    for (int bit = 0; bit < 64; bit++)
        if (held[bit] * 5 > every * 2) layout |= (uint64_t)1 << bit;
    for (int32_t at = 0; at < page->tree.count; at++) {
        uint64_t bits = page->names[at];
        int foreign = (at && (page->is[nodes[at].parent] & FOREIGN)) ||
                      (bits & ~PART_BITS & ~layout) ||
                      ((bits & PART_BITS) && in(page, page->sums, at) * 5 <= every * 3);
        page->is[at] = foreign ? FOREIGN : 0;
    }
}

static void find_core(const Page *page, int32_t *frame, int32_t *core) {
    const HtmlNode *nodes = page->tree.nodes;
    int64_t best = 0, now;
    *frame = 0;
    for (int32_t at = 0; at < page->tree.count; at++) {
        if ((page->is[at] & FOREIGN) || nodes[at].tag == TAG_text) continue;
        now = in(page, page->sums, at);
        if (now > best || (now == best && best && at < nodes[*frame].last)) *frame = at, best = now;
    }
    *core = *frame;
    for (int32_t at = *frame; best && at < nodes[*core].last; at++) {
        if ((page->is[at] & FOREIGN) || nodes[at].tag == TAG_text) continue;
        now = in(page, page->sums, at);
        if (now * 20 >= best * 17 || (now * 2 >= best && says_article(&page->tree, nodes + at)))
            *core = at;
    }
}

static int like(const HtmlTree *tree, const HtmlNode *a, const HtmlNode *b) {
    const HtmlAttribute *x = html_attribute(tree, a, ATTRIBUTE_class);
    const HtmlAttribute *y = html_attribute(tree, b, ATTRIBUTE_class);
    return a->tag == b->tag && x && y && x->size && x->size == y->size &&
           !memcmp(html_bytes(tree, x->start), html_bytes(tree, y->start), (size_t)x->size);
}

static void spread(Page *page, int32_t frame, int32_t core) {
    const HtmlNode *nodes = page->tree.nodes;
    for (int32_t i = core; i < nodes[core].last; i++) page->is[i] |= INSIDE;
    for (int32_t at = core; at != frame; at = nodes[at].parent) {
        int32_t up = nodes[at].parent;
        for (int32_t beside = up + 1; beside < nodes[up].last; beside = nodes[beside].last) {
            if ((page->is[beside] & FOREIGN) || nodes[beside].tag == TAG_text ||
                in(page, page->sums, beside) <= 0 ||
                !like(&page->tree, nodes + at, nodes + beside))
                continue;
            for (int32_t i = beside; i < nodes[beside].last; i++) page->is[i] |= INSIDE;
        }
    }
}

/* ---- what of it is kept ---- */

static void find_lists(Page *page) {
    const HtmlNode *nodes = page->tree.nodes;
    total(page, page->sums, SIZE);
    total(page, page->more, LINKED);
    for (int32_t at = 0; at < page->tree.count; at++) {
        int is = at ? page->is[nodes[at].parent] & (LINKS | TEXTS) : 0;
        int64_t size = in(page, page->sums, at);
        if (!is && (TAG_IS[nodes[at].tag] & LISTS) && size)
            is = in(page, page->more, at) * 10 > size * 7 ? LINKS : TEXTS;
        page->is[at] |= (uint8_t)is;
    }
}

enum { LEFT_OUT_AS_LINKS = 2 }; /* beside `verbatim` of a line */

static void choose(Page *page, int32_t frame, int32_t core) {
    const HtmlNode *nodes = page->tree.nodes;
    int32_t title = frame;
    for (int32_t at = 0; at < core; at++)
        if (nodes[at].tag == TAG_h1 && !(page->is[at] & FOREIGN)) title = at;
    int64_t size = 0;
    int titled = 0;
    for (int32_t i = 0; i < page->lines.count; i++) {
        Line *line = page->lines.lines + i;
        int32_t at = line->node;
        int is = page->is[at];
        if (is & FOREIGN) continue;
        if (!(is & INSIDE) && !(title < at && at < core && value(page, line) > 0)) continue;
        int few = line->linked * (int64_t)2 > line->size && line->size - line->linked < PARAGRAPH;
        if (nodes[at].tag == TAG_h1 && !titled && size < TITLE) {
            titled = 1;
            page->kept_count = 0;
            size = 0;
        } else if (is & (LINKS | TEXTS) ? is & LINKS : few) {
            line->verbatim |= LEFT_OUT_AS_LINKS;
        } else {
            page->kept[page->kept_count++] = i;
            size += line->size;
        }
    }
}

/* Drop headings above nothing, above links, or above a heading of their rank. */
static void drop_headings(Page *page) {
    const Line *lines = page->lines.lines;
    int32_t to = page->kept_count;
    int below = 0;
    for (int32_t i = page->kept_count; i-- > 0;) {
        int32_t number = page->kept[i];
        const Line *line = lines + number;
        const uint8_t *text = page->lines.text + line->start;
        int tag = page->tree.nodes[line->node].tag, heading = TAG_IS[tag] & HEADINGS;
        int colon = line->size < LABEL && text[line->size - 1] == ':';
        int label = line->size < LABEL && !ends_sentence(text, line->size);
        int links = number + 1 < page->lines.count &&
                    (lines[number + 1].verbatim & LEFT_OUT_AS_LINKS);
        if ((heading || colon) && to == page->kept_count) continue;
        if ((heading || colon || label) && links) continue;
        if (heading && (TAG_IS[below] & HEADINGS) && below <= tag) continue;
        page->kept[--to] = number;
        below = tag;
    }
    page->kept_count -= to;
    memmove(page->kept, page->kept + to, (size_t)page->kept_count * sizeof *page->kept);
}

/* ---- text ---- */

/* How many cells a row has, if each of them is one line and there is nothing else, to `sums`. */
static void count_cells(Page *page, const int32_t *rows) {
    size_t bytes = (size_t)page->tree.count * sizeof *page->sums;
    memset(page->sums, 0, bytes);
    memset(page->more, 255, bytes); /* the last cell of each row */
    for (int32_t i = 0; i < page->kept_count; i++) {
        const Line *line = page->lines.lines + page->kept[i];
        int32_t row = rows[line->node];
        int alone = (TAG_IS[page->tree.nodes[line->node].tag] & CELLS) &&
                    page->more[row] != line->node && !line->verbatim;
        if (!alone) page->sums[row] = -page->kept_count;
        page->sums[row]++;
        page->more[row] = line->node;
    }
}

static void put(Page *page, const char *text) {
    size_t size = strlen(text);
    memcpy(page->out + page->used, text, size);
    page->used += (int64_t)size;
}

static void put_line(Page *page, const Line *line, int on_one_line) {
    uint8_t *to = page->out + page->used;
    memcpy(to, page->lines.text + line->start, (size_t)line->size);
    for (int32_t i = 0; on_one_line && i < line->size; i++)
        if (to[i] == '\n') to[i] = ' ';
    page->used += line->size;
}

static void join(Page *page) {
    const HtmlNode *nodes = page->tree.nodes;
    int32_t count = page->tree.count, *items = (int32_t *)page->names, *rows = items + count;
    for (int32_t at = 0; at < count; at++) {
        items[at] = nodes[at].tag == TAG_li ? at : at ? items[nodes[at].parent] : 0;
        rows[at] = nodes[at].tag == TAG_tr ? at : at ? rows[nodes[at].parent] : 0;
    }
    count_cells(page, rows);
    enum { PLAIN_LINE, ITEM, ROW_OF_TABLE } kind, before = PLAIN_LINE;
    int32_t before_row = 0;
    for (int32_t i = 0; i < page->kept_count; i++) {
        const Line *line = page->lines.lines + page->kept[i];
        int32_t at = line->node, item = items[at];
        int begins = item && !(page->is[item] & SEEN) && !line->verbatim &&
                     !(TAG_IS[nodes[at].tag] & HEADINGS);
        kind = page->sums[rows[at]] > 1 ? ROW_OF_TABLE : begins ? ITEM : PLAIN_LINE;
        page->is[item] |= SEEN;
        int goes_on = kind == ROW_OF_TABLE && before == kind && rows[at] == before_row;
        if (i && !goes_on) put(page, kind && kind == before ? "\n" : "\n\n");
        put(page, kind == ITEM ? "- " : kind == PLAIN_LINE ? "" : goes_on ? " " : "| ");
        put_line(page, line, kind != PLAIN_LINE);
        if (kind == ROW_OF_TABLE) put(page, " |");
        before = kind;
        before_row = rows[at];
    }
}

/* ---- the page ---- */

/* 0, HTML_NO_MEMORY or HTML_TOO_LARGE. */
static int read_page(Page *page, const uint8_t *html, int64_t size) {
    int failed = html_parse(&page->tree, html, size);
    if (failed) return failed;
    read_lines(&page->lines, &page->tree);
    size_t nodes = (size_t)page->tree.count, lines = (size_t)page->lines.count;
    page->names = malloc((nodes + 1) * sizeof *page->names);
    page->is = malloc(nodes);
    page->sums = malloc((nodes + 1) * sizeof *page->sums);
    page->more = malloc((nodes + 1) * sizeof *page->more);
    page->kept = malloc((lines + 1) * sizeof *page->kept);
    page->out = malloc((size_t)page->lines.used + lines * 6 + 1);
    if (page->lines.failed || !page->names || !page->is || !page->sums || !page->more ||
        !page->kept || !page->out)
        return HTML_NO_MEMORY;
    int32_t frame, core;
    total(page, page->sums, PROSE);
    find_foreign(page);
    total(page, page->sums, SCORE);
    find_core(page, &frame, &core);
    spread(page, frame, core);
    find_lists(page);
    choose(page, frame, core);
    drop_headings(page);
    join(page);
    return 0;
}

static void free_page(Page *page) {
    html_free(&page->tree);
    free(page->lines.lines);
    free(page->lines.text);
    free(page->names);
    free(page->is);
    free(page->sums);
    free(page->more);
    free(page->kept);
    free(page->out);
}

PyDoc_STRVAR(extract_doc,
"extract(page) -> str\n\n"
"The main text of a page (UTF-8); gptwo.corpus.extraction.bulk says how it is written.");

static PyObject *extract(PyObject *module, PyObject *args) {
    Py_buffer html;
    if (!PyArg_ParseTuple(args, "y*", &html)) return NULL;
    Page page = {0};
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = read_page(&page, html.buf, html.len);
    Py_END_ALLOW_THREADS
    PyObject *text = NULL;
    if (failed == HTML_TOO_LARGE)
        PyErr_Format(PyExc_ValueError, "a page of %zd bytes, over %d", html.len, HTML_MOST);
    else if (failed) PyErr_NoMemory();
    else text = PyUnicode_DecodeUTF8((const char *)page.out, page.used, "replace");
    free_page(&page);
    PyBuffer_Release(&html);
    return text;
}

static PyMethodDef methods[] = {
    {"extract", extract, METH_VARARGS, extract_doc},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_extract", NULL, 0, methods,
                                    NULL, NULL, NULL, NULL};

static void add_names(const char *at, uint64_t bits[TAGS]) {
    for (const char *stop; *at; at = stop + (*stop == ' ')) {
        for (stop = at; *stop && *stop != ' ';) stop++;
        int whole = *at == '=';
        const char *name = at + whole;
        int size = (int)(stop - name), number = NAMES;
        if (bits) {
            bits[tag_named((const uint8_t *)name, size)] = (uint64_t)1 << number;
        } else {
            NAME[number].name = name;
            NAME[number].size = size;
            NAME[number].whole = whole;
            STARTING[*name - 'a'] |= (uint64_t)1 << number;
        }
        NAMES++;
    }
}

PyMODINIT_FUNC PyInit__extract(void) {
    html_prepare();
    if (!NAMES) {
        lines_prepare();
        add_names(PARTS, NULL);
        PART_BITS = ((uint64_t)1 << NAMES) - 1;
        add_names(PIECES, NULL);
        add_names(TAGS_OF_PIECES, TAG_BIT);
        NOT_SHOWN = NAMES;
        PART_BITS |= (uint64_t)1 << NOT_SHOWN;
    }
    PyObject *made = PyModule_Create(&module);
    if (made && PyModule_AddStringConstant(made, "NAMES", PARTS " " PIECES " " TAGS_OF_PIECES))
        Py_CLEAR(made);
    return made;
}
