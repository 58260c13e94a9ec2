/* HTML -> a flat tree, in one pass: the plain twin is gptwo/corpus/extraction/html.py.

   Nodes lie in document order: node 0 is <html>, the descendants of node i are i + 1 ... last - 1,
   its children are found by going from i + 1 to the `last` of each. The rules are those of the
   standard (html.spec.whatwg.org, 13.2) as far as they decide which text is in which block: end
   tags that may be missing, scopes, raw text, characters by name and number, implied head and body.
   What would move or copy nodes is left out: text that is astray in a table stays there, and a
   phrase whose end tag comes inside a block begun in it lasts as long as its parent, as TAG_other.

   Nothing recurses, every byte is looked at a bounded number of times, memory is a small multiple
   of the page, and no more than HTML_DEPTH elements are open: deeper ones become siblings.

       HtmlTree tree = {0};                            html_prepare() once, when the module is made
       int bad = html_parse(&tree, page, size);        0, or a negative reason
       for (int32_t i = 0; i < tree.count; i++) ... tree.nodes[i] ...
       html_free(&tree);                               or html_parse again: its memory serves again

   `page` must stay where it is as long as the tree is used: spans may point into it. Bytes past
   ASCII are not looked at; line ends are line feeds, and NULs are gone, wherever they stood. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "html_entities.h"
#include "html_tags.h"

enum { HTML_DEPTH = 512 };
enum { HTML_MOST = 1 << 29 };                      /* bytes of a page */
enum { HTML_NO_MEMORY = -1, HTML_TOO_LARGE = -2 }; /* what html_parse returns when it fails */

enum { /* flags of an element */
    HTML_HIDDEN = 1,       /* has the attribute hidden */
    HTML_ARIA_HIDDEN = 2,  /* aria-hidden="true" */
    HTML_NOT_SHOWN = 4,    /* style says display: none or visibility: hidden */
    HTML_LINK = 8,         /* has href */
    HTML_LOCAL_LINK = 16,  /* which begins with # or javascript: */
};

typedef struct {
    uint8_t tag, flags;
    uint8_t attributes; /* how many are kept */
    int32_t parent;     /* -1 of <html> */
    int32_t last;       /* past the last descendant */
    int32_t start;      /* of the text, for html_bytes; of an element its first attribute */
    int32_t size;       /* bytes of the text */
} HtmlNode;

typedef struct {
    int32_t name; /* ATTRIBUTE_... */
    int32_t start, size;
} HtmlAttribute;

typedef struct {
    HtmlNode *nodes;
    int32_t count, room;
    HtmlAttribute *attributes;
    int32_t attribute_count, attribute_room;
    const uint8_t *page; /* spans that start below page_size lie here */
    int64_t page_size;
    uint8_t *arena; /* the others here: what is not written as it reads */
    int64_t used, arena_room;
    uint8_t *clean; /* copy of a page with NULs or carriage returns */
    int64_t clean_room;
} HtmlTree;

typedef struct {
    int32_t node, name_size;
    const uint8_t *name;
    uint8_t tag;
} HtmlOpen;

typedef struct {
    HtmlTree *tree;
    const uint8_t *end;
    HtmlOpen stack[HTML_DEPTH]; /* open elements, <html> first */
    int depth;
    int open[TAGS]; /* how many of each */
    enum { BEFORE_HEAD, INSIDE_HEAD, AFTER_HEAD, INSIDE_BODY } place;
    int failed;
} HtmlParser;

typedef struct {
    const uint8_t *name;
    int32_t name_size, first; /* first attribute */
    uint8_t tag, flags, attributes, self_closing;
} HtmlTag;

/* The bytes of a text or of the value of an attribute, UTF-8 as in the page. */
static inline const uint8_t *html_bytes(const HtmlTree *tree, int32_t start) {
    return start < tree->page_size ? tree->page + start : tree->arena + (start - tree->page_size);
}

/* An attribute of a node, NULL when it has none of that name. */
static inline const HtmlAttribute *html_attribute(const HtmlTree *tree, const HtmlNode *node,
                                                  int name) {
    const HtmlAttribute *at = tree->attributes + node->start;
    for (int i = 0; i < node->attributes; i++)
        if (at[i].name == name) return at + i;
    return NULL;
}

/* ---- names ---- */

enum { SPACE = 1, NAME_END = 2, ATTRIBUTE_END = 4, LETTER = 8, DIGIT = 16, HEX = 32 };
static uint8_t HTML_CLASS[256], HTML_LOWER[256];
static uint32_t HTML_PROPERTY[TAGS];
static uint16_t TAG_SLOT[1024], ATTRIBUTE_SLOT[128], ENTITY_SLOT[8192]; /* index + 1; by hash */

#define IS(byte, class) (HTML_CLASS[byte] & (class))

static inline uint32_t hash_name(const uint8_t *at, int64_t size) {
    uint32_t sum = (uint32_t)size;
    for (int64_t i = 0; i < size; i++) sum = (sum ^ HTML_LOWER[at[i]]) * 0x01000193u;
    return sum ^ sum >> 15;
}

static inline int same_name(const uint8_t *a, const uint8_t *b, int64_t size) {
    for (int64_t i = 0; i < size; i++)
        if (HTML_LOWER[a[i]] != HTML_LOWER[b[i]]) return 0;
    return 1;
}

static void put_name(uint16_t *slots, uint32_t mask, const char *name, int index) {
    uint32_t at = hash_name((const uint8_t *)name, (int64_t)strlen(name)) & mask;
    while (slots[at]) at = (at + 1) & mask;
    slots[at] = (uint16_t)(index + 1);
}

/* TAG_other for a name that is not known. */
static int tag_named(const uint8_t *name, int64_t size) {
    if (size > 13) return TAG_other;
    for (uint32_t at = hash_name(name, size) & 1023; TAG_SLOT[at]; at = (at + 1) & 1023) {
        const char *known = TAG_NAME[TAG_SLOT[at] - 1];
        if (same_name((const uint8_t *)known, name, size) && !known[size]) return TAG_SLOT[at] - 1;
    }
    return TAG_other;
}

/* -1 for an attribute that is not kept. */
static int attribute_named(const uint8_t *name, int64_t size) {
    if (size > 14) return -1;
    for (uint32_t at = hash_name(name, size) & 127; ATTRIBUTE_SLOT[at]; at = (at + 1) & 127) {
        const char *known = ATTRIBUTE_NAME[ATTRIBUTE_SLOT[at] - 1];
        if (same_name((const uint8_t *)known, name, size) && !known[size])
            return ATTRIBUTE_SLOT[at] - 1;
    }
    return -1;
}

/* The characters of an entity as UTF-8, NULL for what is none; upper and lower case differ. */
static const char *entity_named(const uint8_t *name, int64_t size) {
    for (uint32_t at = hash_name(name, size) & 8191; ENTITY_SLOT[at]; at = (at + 1) & 8191) {
        const char *const *known = ENTITY[ENTITY_SLOT[at] - 1];
        if (!strncmp(known[0], (const char *)name, (size_t)size) && !known[0][size])
            return known[1];
    }
    return NULL;
}

/* Fill the tables; the first thing to call. */
static void html_prepare(void) {
    if (HTML_LOWER['a']) return;
    for (int c = 0; c < 256; c++) {
        int low = c >= 'A' && c <= 'Z' ? c + 32 : c;
        int space = c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\r';
        HTML_LOWER[c] = (uint8_t)low;
        if (space) HTML_CLASS[c] |= SPACE;
        if (space || c == '/' || c == '>') HTML_CLASS[c] |= NAME_END | ATTRIBUTE_END;
        if (c == '=') HTML_CLASS[c] |= ATTRIBUTE_END;
        if (low >= 'a' && low <= 'z') HTML_CLASS[c] |= LETTER;
        if (c >= '0' && c <= '9') HTML_CLASS[c] |= DIGIT | HEX;
        if (low >= 'a' && low <= 'f') HTML_CLASS[c] |= HEX;
    }
    for (int i = TAG_other + 1; i < TAGS; i++) put_name(TAG_SLOT, 1023, TAG_NAME[i], i);
    for (int i = 0; i < ATTRIBUTES; i++) put_name(ATTRIBUTE_SLOT, 127, ATTRIBUTE_NAME[i], i);
    for (int i = 0; i < ENTITIES; i++) put_name(ENTITY_SLOT, 8191, ENTITY[i][0], i);
    for (size_t i = 0; i < sizeof TAGS_WITH / sizeof *TAGS_WITH; i++)
        for (const char *name = TAGS_WITH[i].tags, *stop; *name; name = stop + (*stop == ' ')) {
            for (stop = name; *stop && *stop != ' ';) stop++;
            HTML_PROPERTY[tag_named((const uint8_t *)name, stop - name)] |= TAGS_WITH[i].property;
        }
}

/* ---- room ---- */

/* Room for `wanted` items of `size` bytes at *at; 0 when there is no memory. */
static int html_grow(void **at, int64_t room, int64_t wanted, size_t size) {
    void *grown = wanted > room ? realloc(*at, (size_t)wanted * size) : *at;
    if (!grown && wanted > room) return 0;
    *at = grown;
    return 1;
}

/* Room for what one tag may add. */
static int make_room(HtmlTree *tree) {
    if (tree->count + 8 > tree->room) {
        int32_t room = tree->room + tree->room / 2 + 1024;
        if (!html_grow((void **)&tree->nodes, tree->room, room, sizeof(HtmlNode))) return 0;
        tree->room = room;
    }
    if (tree->attribute_count + ATTRIBUTES > tree->attribute_room) {
        int32_t room = tree->attribute_room + tree->attribute_room / 2 + 1024;
        void **at = (void **)&tree->attributes;
        if (!html_grow(at, tree->attribute_room, room, sizeof(HtmlAttribute))) return 0;
        tree->attribute_room = room;
    }
    return 1;
}

static int arena_room(HtmlParser *p, int64_t more) {
    HtmlTree *tree = p->tree;
    if (tree->used + more > tree->arena_room) {
        int64_t room = (tree->used + more) * 3 / 2 + 4096;
        if (!html_grow((void **)&tree->arena, tree->arena_room, room, 1)) return p->failed = 1, 0;
        tree->arena_room = room;
    }
    return 1;
}

/* ---- characters by name and number ---- */

/* What windows-1252 has at 128 ... 159, where the standard reads numbers as that. */
static const uint16_t WINDOWS_1252[32] = {
    0x20AC, 0x81,   0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
    0x2039, 0x0152, 0x8D,   0x017D, 0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x9D,   0x017E, 0x0178,
};

static int put_character(uint32_t code, uint8_t *out) {
    if (code >= 0x80 && code < 0xA0) code = WINDOWS_1252[code - 0x80];
    if (!code || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) code = 0xFFFD;
    if (code < 0x80) return out[0] = (uint8_t)code, 1;
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    for (int i = more; i > 0; i--, code >>= 6) out[i] = (uint8_t)(0x80 | (code & 0x3F));
    out[0] = (uint8_t)(0xF0u << (3 - more) | code);
    return more + 1;
}

/* Read "#..." behind an ampersand at `at`; where it ends, `at` when it is no number. */
static const uint8_t *read_number(const uint8_t *at, const uint8_t *end, uint8_t *out, int *size) {
    const uint8_t *from = at + 1;
    int hex = from < end && HTML_LOWER[*from] == 'x';
    from += hex;
    const uint8_t *digit = from;
    uint32_t code = 0;
    for (; digit < end && IS(*digit, hex ? HEX : DIGIT); digit++) {
        uint32_t value = *digit <= '9' ? *digit - '0' + 0u : HTML_LOWER[*digit] - 'a' + 10u;
        code = code * (hex ? 16 : 10) + value;
        if (code > 0x10FFFF) code = 0x110000;
    }
    if (digit == from) return at;
    *size = put_character(code, out);
    return digit + (digit < end && *digit == ';');
}

/* Read a name behind an ampersand at `at`; where it ends, `at` when it is none. */
static const uint8_t *read_name(const uint8_t *at, const uint8_t *end, int attribute,
                                const char **found) {
    int64_t size = 0, most = end - at < LONGEST_ENTITY ? end - at : LONGEST_ENTITY;
    while (size < most && IS(at[size], LETTER | DIGIT)) size++;
    if (size < most && at[size] == ';' && (*found = entity_named(at, size + 1)))
        return at + size + 1;
    for (int64_t old = size < 6 ? size : 6; old > 1; old--) { /* those without a semicolon */
        if (!(*found = entity_named(at, old))) continue;
        int goes_on = at + old < end && (at[old] == '=' || IS(at[old], LETTER | DIGIT));
        return attribute && goes_on ? at : at + old;
    }
    return at;
}

/* Write what [at, end) reads as to the arena: where it begins, for html_bytes, and its size. */
static int32_t read_text(HtmlParser *p, const uint8_t *at, const uint8_t *end, int attribute,
                         int32_t *size) {
    HtmlTree *tree = p->tree;
    *size = 0;
    if (!arena_room(p, (end - at) * 6 / 5 + 8)) return 0; /* &nGt; grows most: 6 bytes from 5 */
    uint8_t *from = tree->arena + tree->used, *out = from;
    while (at < end) {
        const uint8_t *mark = memchr(at, '&', (size_t)(end - at));
        if (!mark) mark = end;
        memcpy(out, at, (size_t)(mark - at));
        out += mark - at;
        at = mark;
        if (at == end) break;
        const char *name;
        int length = 0;
        const uint8_t *past = ++at;
        if (at < end && *at == '#') {
            past = read_number(at, end, out, &length);
        } else if (at < end && (past = read_name(at, end, attribute, &name)) > at) {
            length = (int)strlen(name);
            memcpy(out, name, (size_t)length);
        }
        if (past == at) *out = '&', length = 1;
        out += length;
        at = past;
    }
    int64_t start = tree->page_size + tree->used;
    *size = (int32_t)(out - from);
    tree->used += out - from;
    return (int32_t)start;
}

/* ---- tree ---- */

static void pop_to(HtmlParser *p, int depth) {
    while (p->depth > depth) {
        const HtmlOpen *top = &p->stack[--p->depth];
        p->tree->nodes[top->node].last = p->tree->count;
        p->open[top->tag]--;
    }
}

/* Add a node inside the innermost open element. There is room: make_room was asked. */
static HtmlNode *add_node(HtmlParser *p, int tag) {
    HtmlTree *tree = p->tree;
    HtmlNode *node = &tree->nodes[tree->count++];
    int32_t parent = p->depth ? p->stack[p->depth - 1].node : -1;
    *node = (HtmlNode){.tag = (uint8_t)tag, .parent = parent, .last = tree->count};
    return node;
}

/* Add an element and leave it open. */
static void open_element(HtmlParser *p, const HtmlTag *tag) {
    if (p->depth == HTML_DEPTH) pop_to(p, HTML_DEPTH - 1);
    HtmlNode *node = add_node(p, tag->tag);
    node->flags = tag->flags;
    node->attributes = tag->attributes;
    node->start = tag->first;
    p->stack[p->depth++] = (HtmlOpen){.node = p->tree->count - 1, .tag = tag->tag,
                                      .name = tag->name, .name_size = tag->name_size};
    p->open[tag->tag]++;
}

static void open_bare(HtmlParser *p, int tag) { open_element(p, &(HtmlTag){.tag = (uint8_t)tag}); }

static void open_body(HtmlParser *p) {
    pop_to(p, 1);
    open_bare(p, TAG_body);
    p->place = INSIDE_BODY;
}

/* Whether what comes is neither inside the body nor inside an element of the head. */
static int outside(const HtmlParser *p) {
    return p->place != INSIDE_BODY && p->depth <= 1 + (p->place == INSIDE_HEAD);
}

/* Where the innermost open element of `kinds` is, 0 when there is none before one of `bars`. */
static int find_kind(const HtmlParser *p, uint32_t kinds, uint32_t bars) {
    for (int i = p->depth - 1; i > 0; i--) {
        uint32_t is = HTML_PROPERTY[p->stack[i].tag];
        if (is & kinds) return i;
        if (is & bars) return 0;
    }
    return 0;
}

/* The same of elements with this tag; of unknown ones the names must be the same. */
static int find_tag(const HtmlParser *p, int tag, uint32_t bars, const HtmlTag *named) {
    if (!p->open[tag]) return 0;
    for (int i = p->depth - 1; i > 0; i--) {
        const HtmlOpen *at = &p->stack[i];
        int is = at->tag == tag;
        if (is && tag == TAG_other)
            is = at->name_size == named->name_size &&
                 same_name(at->name, named->name, at->name_size);
        if (is) return i;
        if (HTML_PROPERTY[at->tag] & bars) return 0;
    }
    return 0;
}

static int end_found(HtmlParser *p, int found) {
    if (found) pop_to(p, found);
    return found;
}

static int close_p(HtmlParser *p) { return end_found(p, find_tag(p, TAG_p, SCOPE | BUTTON, NULL)); }

/* Where <svg> or <math> is open whose own content is being read, else 0. */
static int foreign(const HtmlParser *p) {
    if (!p->open[TAG_svg] && !p->open[TAG_math]) return 0;
    for (int i = p->depth - 1; i > 0; i--) {
        int tag = p->stack[i].tag;
        if (tag == TAG_svg || tag == TAG_math) return i;
        if (tag == TAG_foreignobject) return 0;
    }
    return 0;
}

/* End <svg> and <math>; returns 0. */
static int end_foreign(HtmlParser *p) {
    for (int at; (at = foreign(p));) pop_to(p, at);
    return 0;
}

/* Whether an end tag ends an element of <svg> or <math>. There all names are alike. */
static int foreign_end(HtmlParser *p, const HtmlTag *tag) {
    int svg = foreign(p), found = svg ? find_tag(p, tag->tag, 0, tag) : 0;
    if (svg && (tag->tag == TAG_p || tag->tag == TAG_br)) return end_foreign(p);
    return found >= svg && end_found(p, found);
}

/* An element that would have to end inside a block begun in it is no longer what it was. */
static void fade(HtmlParser *p, int found) {
    if (!found) return;
    HtmlOpen *open = &p->stack[found];
    p->open[open->tag]--;
    p->open[TAG_other]++;
    p->tree->nodes[open->node].tag = open->tag = TAG_other;
    open->name_size = 0; /* no end tag has this name */
}

/* Attributes of a second <html> or <body> count when the first was implied. */
static void adopt(HtmlNode *node, const HtmlTag *tag) {
    if (node->attributes) return;
    node->flags = tag->flags;
    node->attributes = tag->attributes;
    node->start = tag->first;
}

/* <html>, <head>, <body>; 0 for any other tag, for which head or body are opened if need be. */
static int start_of_page(HtmlParser *p, const HtmlTag *tag) {
    if (tag->tag == TAG_html) return adopt(p->tree->nodes, tag), 1;
    if (tag->tag == TAG_head) {
        if (p->place == BEFORE_HEAD) open_element(p, tag), p->place = INSIDE_HEAD;
        return 1;
    }
    if (tag->tag == TAG_body) {
        if (p->place != INSIDE_BODY) open_body(p);
        adopt(p->tree->nodes + p->stack[1].node, tag);
        return 1;
    }
    if (!outside(p)) return 0;
    if (!(HTML_PROPERTY[tag->tag] & IN_HEAD)) open_body(p);
    else if (p->place == BEFORE_HEAD) open_bare(p, TAG_head), p->place = INSIDE_HEAD;
    return 0;
}

/* End what a part of a table cannot be inside of; 0 when there is no table. */
static int to_place_in_table(HtmlParser *p, int tag) {
    if (!p->open[TAG_table] && !p->open[TAG_template]) return 0;
    uint32_t is = HTML_PROPERTY[tag], wanted = TABLE;
    if (is & CELL) wanted |= ROWS | ROW;
    if (is & ROW) wanted |= ROWS;
    int found = tag == TAG_col && p->stack[p->depth - 1].tag == TAG_colgroup
                    ? p->depth - 1
                    : find_kind(p, wanted, 0);
    if (!found) return 0;
    pop_to(p, found + 1);
    if ((is & CELL) && p->stack[found].tag != TAG_tr) open_bare(p, TAG_tr);
    return 1;
}

/* End what the start of an element ends; 0 when the tag is to be ignored. */
static int make_place(HtmlParser *p, int tag) {
    uint32_t is = HTML_PROPERTY[tag];
    int top = p->stack[p->depth - 1].tag;
    if (is & TABLE_PART) return to_place_in_table(p, tag);
    if (tag == TAG_form && p->open[TAG_form]) return 0;
    if (tag == TAG_li) end_found(p, find_tag(p, TAG_li, SPECIAL, NULL));
    if (is & DEFINITION) end_found(p, find_kind(p, DEFINITION, SPECIAL));
    if (is & CLOSES_P) close_p(p);
    if ((is & HEADING) && (HTML_PROPERTY[p->stack[p->depth - 1].tag] & HEADING))
        pop_to(p, p->depth - 1);
    if (tag == TAG_table) {
        int scope = find_kind(p, SCOPE, 0);
        if (p->stack[scope].tag == TAG_table) pop_to(p, scope);
    }
    if (tag == TAG_button) end_found(p, find_tag(p, TAG_button, SCOPE, NULL));
    if (tag == TAG_select && end_found(p, find_tag(p, TAG_select, SCOPE, NULL))) return 0;
    if ((tag == TAG_option || tag == TAG_optgroup) && top == TAG_option) pop_to(p, p->depth - 1);
    if (tag == TAG_optgroup && p->stack[p->depth - 1].tag == tag) pop_to(p, p->depth - 1);
    if ((is & RUBY) && (HTML_PROPERTY[top] & RUBY)) pop_to(p, p->depth - 1);
    if (tag == TAG_a && !end_found(p, find_tag(p, TAG_a, SPECIAL | PLAIN, NULL)))
        fade(p, find_tag(p, TAG_a, SCOPE, NULL));
    return 1;
}

/* A start tag. Returns the tag whose raw text follows, else 0. */
static int start_tag(HtmlParser *p, const HtmlTag *tag) {
    uint32_t is = HTML_PROPERTY[tag->tag];
    int svg = (is & NOT_SVG) ? end_foreign(p) : foreign(p);
    if (svg) {
        open_element(p, tag);
        if (tag->self_closing) pop_to(p, p->depth - 1);
        return 0;
    }
    if (start_of_page(p, tag) || !make_place(p, tag->tag)) return 0;
    open_element(p, tag);
    if ((is & VOID) || (tag->self_closing && (tag->tag == TAG_svg || tag->tag == TAG_math)))
        pop_to(p, p->depth - 1);
    return is & (RAW | RAW_ENTITIES) ? tag->tag : 0;
}

static void end_tag(HtmlParser *p, const HtmlTag *tag) {
    uint32_t is = HTML_PROPERTY[tag->tag];
    if (foreign_end(p, tag)) return;
    if (tag->tag == TAG_html || tag->tag == TAG_body) return; /* what follows belongs there too */
    if (tag->tag == TAG_head) {
        if (p->place == INSIDE_HEAD) pop_to(p, 1), p->place = AFTER_HEAD;
    } else if (tag->tag == TAG_br) {
        start_tag(p, &(HtmlTag){.tag = TAG_br});
    } else if (tag->tag == TAG_p) {
        if (outside(p) || close_p(p)) return;
        start_tag(p, &(HtmlTag){.tag = TAG_p}); /* an empty paragraph, as the standard has it */
        close_p(p);
    } else if (is & HEADING) {
        end_found(p, find_kind(p, HEADING, SCOPE));
    } else if (tag->tag == TAG_template) {
        end_found(p, find_tag(p, TAG_template, 0, NULL));
    } else if (tag->tag == TAG_table || (is & TABLE_PART)) {
        end_found(p, find_tag(p, tag->tag, TABLE, NULL));
    } else if (is & BLOCK) {
        end_found(p, find_tag(p, tag->tag, tag->tag == TAG_li ? SCOPE | LIST : SCOPE, NULL));
    } else if (!end_found(p, find_tag(p, tag->tag, SPECIAL | PLAIN, tag)) && (is & FADES)) {
        fade(p, find_tag(p, tag->tag, SCOPE, NULL));
    }
}

/* A run of text; what is white space outside head and body is left out. */
static void add_text(HtmlParser *p, const uint8_t *at, const uint8_t *end, int entities) {
    if (outside(p)) {
        while (at < end && IS(*at, SPACE)) at++;
        if (at < end) open_body(p);
    }
    if (at == end) return;
    int32_t size = (int32_t)(end - at), start = (int32_t)(at - p->tree->page);
    if (entities && memchr(at, '&', (size_t)(end - at))) start = read_text(p, at, end, 0, &size);
    HtmlNode *node = add_node(p, TAG_text);
    node->start = start;
    node->size = size;
}

/* ---- tags ---- */

/* Whether `word` is in the text, white space aside and in either case; no letter of its first is
   repeated in it, so that the time is linear. */
static int says(const uint8_t *at, int64_t size, const char *word) {
    for (int64_t i = 0; i < size; i++) {
        if (HTML_LOWER[at[i]] != (uint8_t)*word) continue;
        const char *next = word;
        for (int64_t k = i; k < size && *next; k++) {
            if (IS(at[k], SPACE)) continue;
            if (HTML_LOWER[at[k]] != (uint8_t)*next) break;
            next++;
        }
        if (!*next) return 1;
    }
    return 0;
}

static int begins(const uint8_t *at, int64_t size, const char *word) {
    int64_t length = (int64_t)strlen(word);
    while (size && IS(*at, SPACE)) at++, size--;
    return size >= length && same_name(at, (const uint8_t *)word, length);
}

static int flags_of(int name, const uint8_t *at, int64_t size) {
    if (name == ATTRIBUTE_hidden) return HTML_HIDDEN;
    if (name == ATTRIBUTE_aria_hidden) return begins(at, size, "true") ? HTML_ARIA_HIDDEN : 0;
    if (name == ATTRIBUTE_style) {
        int hides = says(at, size, "display:none") || says(at, size, "visibility:hidden");
        return hides ? HTML_NOT_SHOWN : 0;
    }
    if (name != ATTRIBUTE_href) return 0;
    int local = begins(at, size, "#") || begins(at, size, "javascript:");
    return local ? HTML_LINK | HTML_LOCAL_LINK : HTML_LINK;
}

static void keep_attribute(HtmlParser *p, HtmlTag *tag, int name, const uint8_t *at,
                           const uint8_t *end) {
    HtmlTree *tree = p->tree;
    int32_t start = (int32_t)(at - tree->page), size = (int32_t)(end - at);
    if (size && memchr(at, '&', (size_t)size)) start = read_text(p, at, end, 1, &size);
    tag->flags |= (uint8_t)flags_of(name, html_bytes(tree, start), size);
    if (name >= ATTRIBUTE_href) return;
    tree->attributes[tree->attribute_count++] = (HtmlAttribute){name, start, size};
    tag->attributes++;
}

/* Read a tag's name and attributes at `at`; where it ends, NULL when the page ends first. */
static const uint8_t *read_tag(HtmlParser *p, const uint8_t *at, HtmlTag *tag, int keep) {
    const uint8_t *end = p->end, *name = at;
    while (at < end && !IS(*at, NAME_END)) at++;
    *tag = (HtmlTag){.name = name, .name_size = (int32_t)(at - name),
                     .first = p->tree->attribute_count};
    tag->tag = (uint8_t)tag_named(name, at - name);
    for (uint32_t seen = 0; at < end;) {
        const uint8_t *from = at;
        while (at < end && IS(*at, SPACE | NAME_END) && *at != '>') at++;
        if (at == end) break;
        if (*at == '>') return tag->self_closing = at > from && at[-1] == '/', at + 1;
        name = at++;
        while (at < end && !IS(*at, ATTRIBUTE_END)) at++;
        int known = keep ? attribute_named(name, at - name) : -1;
        while (at < end && IS(*at, SPACE)) at++;
        const uint8_t *value = at, *stop = at;
        if (at < end && *at == '=') {
            for (at++; at < end && IS(*at, SPACE);) at++;
            value = stop = at;
            if (at < end && (*at == '"' || *at == '\'')) {
                value++;
                if (!(stop = memchr(value, *at, (size_t)(end - value)))) return NULL;
                at = stop + 1;
            } else {
                while (at < end && *at != '>' && !IS(*at, SPACE)) at++;
                stop = at;
            }
        }
        if (known < 0 || seen >> known & 1) continue; /* the first of two counts */
        seen |= 1u << known;
        keep_attribute(p, tag, known, value, stop);
    }
    return NULL;
}

/* ---- raw text and comments ---- */

/* Whether "</name" or "<name", with a mark, is a tag of this name. */
static int is_tag_of(const uint8_t *at, const uint8_t *end, const char *name) {
    int64_t size = (int64_t)strlen(name);
    return end - at > size && same_name(at, (const uint8_t *)name, size) && IS(at[size], NAME_END);
}

/* Where the end tag of raw text is, `end` when there is none. In a script, what stands between
   <!-- <script and --> may hold an end tag. */
static const uint8_t *raw_end(const uint8_t *at, const uint8_t *end, int tag) {
    const char *name = TAG_NAME[tag];
    while ((at = memchr(at, '<', (size_t)(end - at)))) {
        if (end - at > 2 && at[1] == '/' && is_tag_of(at + 2, end, name)) return at;
        if (tag != TAG_script || end - at < 4 || memcmp(at, "<!--", 4)) {
            at++;
            continue;
        }
        int inner = 0;
        for (at += 2; at < end; at++) {
            if (*at == '>' && at[-1] == '-' && at[-2] == '-') break;
            if (*at != '<') continue;
            if (end - at > 2 && at[1] == '/' && is_tag_of(at + 2, end, name)) {
                if (!inner) return at;
                inner = 0;
            } else if (is_tag_of(at + 1, end, name)) {
                inner = 1;
            }
        }
    }
    return end;
}

/* Past the end of a comment whose <!-- is at `at`. */
static const uint8_t *comment_end(const uint8_t *at, const uint8_t *end) {
    for (const uint8_t *stop = at + 4; (stop = memchr(stop, '>', (size_t)(end - stop))); stop++) {
        if (stop[-1] == '-' && stop[-2] == '-') return stop + 1;
        if (stop - at > 6 && stop[-1] == '!' && stop[-2] == '-' && stop[-3] == '-') return stop + 1;
    }
    return end;
}

/* <!...>, <?...> and </ before what is no name; where they end. */
static const uint8_t *read_other(HtmlParser *p, const uint8_t *at) {
    const uint8_t *end = p->end, *stop = at;
    if (end - at >= 4 && !memcmp(at, "<!--", 4)) return comment_end(at, end);
    if (end - at >= 9 && !memcmp(at, "<![CDATA[", 9) && foreign(p)) {
        at += 9;
        for (stop = at; (stop = memchr(stop, '>', (size_t)(end - stop))); stop++)
            if (stop - at > 1 && stop[-1] == ']' && stop[-2] == ']') break;
        add_text(p, at, stop ? stop - 2 : end, 0);
    } else {
        stop = memchr(at, '>', (size_t)(end - at));
    }
    return stop ? stop + 1 : end;
}

/* Read the markup whose < is at `at`; where it ends. */
static const uint8_t *read_markup(HtmlParser *p, const uint8_t *at) {
    int ends = at[1] == '/';
    if (!ends && !IS(at[1], LETTER)) return read_other(p, at);
    if (ends && !IS(at[2], LETTER)) return read_other(p, at);
    HtmlTag tag;
    if (!(at = read_tag(p, at + 1 + ends, &tag, !ends))) return p->end;
    if (ends) return end_tag(p, &tag), at;
    int raw = start_tag(p, &tag);
    int newline = tag.tag == TAG_pre || tag.tag == TAG_listing || tag.tag == TAG_textarea;
    if (newline && at < p->end && *at == '\n') at++;
    if (!raw) return at;
    const uint8_t *stop = raw == TAG_plaintext ? p->end : raw_end(at, p->end, raw);
    add_text(p, at, stop, (HTML_PROPERTY[raw] & RAW_ENTITIES) != 0);
    return stop;
}

/* The first < at or behind `at` that begins markup, else `end`. */
static const uint8_t *next_markup(const uint8_t *at, const uint8_t *end) {
    for (; (at = memchr(at, '<', (size_t)(end - at))); at++) {
        if (end - at < 2) break;
        if (IS(at[1], LETTER) || at[1] == '!' || at[1] == '?') return at;
        if (at[1] == '/' && end - at > 2) return at;
    }
    return end;
}

/* ---- page ---- */

/* Drop NULs and make every line end a line feed; 0 when there is no memory. */
static int clean_page(HtmlTree *tree) {
    const uint8_t *page = tree->page;
    size_t size = (size_t)tree->page_size;
    if (!size || (!memchr(page, '\r', size) && !memchr(page, 0, size))) return 1;
    if (!html_grow((void **)&tree->clean, tree->clean_room, tree->page_size, 1)) return 0;
    if (tree->page_size > tree->clean_room) tree->clean_room = tree->page_size;
    uint8_t *out = tree->clean;
    for (size_t i = 0; i < size; i++) {
        if (page[i] > '\r') *out++ = page[i];
        else if (page[i] == '\r') *out++ = '\n', i += i + 1 < size && page[i + 1] == '\n';
        else if (page[i]) *out++ = page[i];
    }
    tree->page = tree->clean;
    tree->page_size = out - tree->clean;
    return 1;
}

static int html_parse(HtmlTree *tree, const uint8_t *page, int64_t size) {
    if (size > HTML_MOST) return HTML_TOO_LARGE;
    tree->page = page;
    tree->page_size = size;
    tree->count = tree->attribute_count = 0;
    tree->used = 0;
    if (!make_room(tree) || !clean_page(tree)) return HTML_NO_MEMORY;
    HtmlParser parser, *p = &parser;
    p->tree = tree;
    p->end = tree->page + tree->page_size;
    p->depth = p->failed = 0;
    p->place = BEFORE_HEAD;
    memset(p->open, 0, sizeof p->open);
    open_bare(p, TAG_html);
    for (const uint8_t *at = tree->page; at < p->end;) {
        const uint8_t *mark = next_markup(at, p->end);
        if (!make_room(tree)) return HTML_NO_MEMORY;
        if (mark > at) add_text(p, at, mark, 1);
        at = mark < p->end ? read_markup(p, mark) : p->end;
        if (p->failed) return HTML_NO_MEMORY;
    }
    if (!make_room(tree)) return HTML_NO_MEMORY;
    if (p->place != INSIDE_BODY) open_body(p);
    pop_to(p, 0);
    return 0;
}

static void html_free(HtmlTree *tree) {
    free(tree->nodes);
    free(tree->attributes);
    free(tree->arena);
    free(tree->clean);
    *tree = (HtmlTree){0};
}
