/* The flat tree of a page -> its lines: what a reader sees between two breaks. The plain twin is
   gptwo/corpus/extraction/lines.py, where the rules are. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "html.h"

typedef struct {
    int32_t node;        /* the innermost block around it */
    int32_t start, size; /* bytes in `text` */
    int32_t linked;      /* of them inside links, white space aside */
    int32_t verbatim;
} Line;

typedef struct {
    Line *lines;
    int32_t count, room;
    uint8_t *text; /* of all lines */
    int64_t used, text_room;
    Line line; /* the one that is being read */
    int begun;
    char gap; /* white space since its last word: 0, ' ' or '\n' */
    int failed;
} Lines;

/* What is asked of tags. */
enum { UNREAD = 1, EDGE = 2, VERBATIM = 4, LISTS = 8, HEADINGS = 16, ARTICLE = 32, CELLS = 64 };

static const struct {
    int property;
    const char *tags;
} LINE_TAGS[] = {
    {UNREAD, "script style noscript template head title iframe svg math button select textarea "
             "input datalist option optgroup object applet embed canvas video audio map progress "
             "meter output dialog frameset noframes noembed rt rp"},
    {EDGE, "html body header footer nav aside main article section search hgroup address div p h1 "
           "h2 h3 h4 h5 h6 ul ol menu dir li dl dt dd blockquote pre listing xmp plaintext figure "
           "figcaption picture hr center details summary table caption thead tbody tfoot tr td th "
           "form fieldset legend label marquee"},
    {VERBATIM, "pre listing xmp plaintext"},
    {LISTS, "ul ol dl dir menu table"},
    {HEADINGS, "h1 h2 h3 h4 h5 h6"},
    {ARTICLE, "article main"},
    {CELLS, "td th"},
};
static uint8_t TAG_IS[TAGS];

static void lines_prepare(void) {
    for (size_t i = 0; i < sizeof LINE_TAGS / sizeof *LINE_TAGS; i++)
        for (const char *name = LINE_TAGS[i].tags, *stop; *name; name = stop + (*stop == ' ')) {
            for (stop = name; *stop && *stop != ' ';) stop++;
            TAG_IS[tag_named((const uint8_t *)name, stop - name)] |= (uint8_t)LINE_TAGS[i].property;
        }
}

/* ---- characters ---- */

enum { VISIBLE, WHITE, SILENT };

/* What the character at `at` is, and its bytes. Control characters and what has no width say
   nothing; white space is what Unicode says. */
static inline int kind_of(const uint8_t *at, const uint8_t *end, int *size) {
    uint8_t first = *at;
    *size = 1;
    if (first > ' ' && first < 127) return VISIBLE;
    if (first == ' ' || (first > 8 && first < 14) || (first > 27 && first < 32)) return WHITE;
    if (first < 128) return SILENT;
    *size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (end - at < *size) *size = (int)(end - at);
    if (*size == 2 && first == 0xC2) {
        if (at[1] == 0x85 || at[1] == 0xA0) return WHITE;
        return at[1] == 0xAD ? SILENT : VISIBLE;
    }
    if (*size != 3) return VISIBLE;
    uint32_t code = (uint32_t)first << 16 | (uint32_t)at[1] << 8 | at[2];
    if (code == 0xE2808B || code == 0xEFBBBF) return SILENT;
    if (code >= 0xEE8080 && code <= 0xEFA3BF) return SILENT; /* private use: icons of a font */
    int white = (code >= 0xE28080 && code <= 0xE2808A) || code == 0xE280A8 || code == 0xE280A9 ||
                code == 0xE280AF || code == 0xE2819F || code == 0xE38080 || code == 0xE19A80;
    return white ? WHITE : VISIBLE;
}

/* ---- the line that is being read ---- */

static int lines_room(Lines *to, int64_t bytes) {
    if (to->used + bytes > to->text_room) {
        int64_t room = (to->used + bytes) * 3 / 2 + 4096;
        if (!html_grow((void **)&to->text, to->text_room, room, 1)) return to->failed = 1, 0;
        to->text_room = room;
    }
    return 1;
}

static void begin_line(Lines *to, int32_t node, int verbatim) {
    if (to->begun) return;
    to->line = (Line){.node = node, .start = (int32_t)to->used, .verbatim = verbatim};
    to->begun = 1;
}

static void end_line(Lines *to) {
    Line *line = &to->line;
    int begun = to->begun;
    to->begun = to->gap = 0;
    if (!begun) return;
    const uint8_t *text = to->text;
    int32_t start = line->start, end = (int32_t)to->used;
    if (line->verbatim) {
        while (end > start && IS(text[end - 1], SPACE)) end--;
        for (int32_t i = start; i < end && IS(text[i], SPACE); i++)
            if (text[i] == '\n') start = i + 1; /* blank lines before it go */
    }
    to->used = end;
    if (end == start) return;
    if (to->count == to->room) {
        int32_t room = to->room * 2 + 256;
        if (!html_grow((void **)&to->lines, to->room, room, sizeof(Line))) {
            to->failed = 1;
            return;
        }
        to->room = room;
    }
    line->start = start;
    line->size = end - start;
    to->lines[to->count++] = *line;
}

/* A block begins or ends. */
static void line_edge(Lines *to, int verbatim) {
    if (!verbatim) end_line(to);
    else if (to->begun && to->text[to->used - 1] != '\n' && lines_room(to, 1))
        to->text[to->used++] = '\n';
}

/* One <br> is a line feed, the second ends the line. */
static void line_break(Lines *to, int verbatim) {
    if (verbatim) {
        if (to->begun && lines_room(to, 1)) to->text[to->used++] = '\n';
    } else if (to->begun) {
        if (to->gap == '\n') end_line(to);
        else to->gap = '\n';
    }
}

static void add_verbatim(Lines *to, const uint8_t *at, const uint8_t *end, int32_t node,
                         int linked) {
    int begun = to->begun;
    begin_line(to, node, 1);
    uint8_t *out = to->text + to->used;
    for (int size; at < end; at += size) {
        int kind = kind_of(at, end, &size);
        if (kind == WHITE) *out++ = *at == '\n' || *at == '\t' ? *at : ' ';
        if (kind != VISIBLE) continue;
        for (int i = 0; i < size; i++) *out++ = at[i];
        if (linked) to->line.linked += size;
    }
    if (out == to->text + to->used) to->begun = begun;
    to->used = out - to->text;
}

/* A text node; white space becomes one space. */
static void line_text(Lines *to, const uint8_t *at, int32_t length, int32_t node, int linked,
                      int verbatim) {
    const uint8_t *end = at + length;
    if (!lines_room(to, (int64_t)length + 1)) return;
    if (verbatim) {
        add_verbatim(to, at, end, node, linked);
        return;
    }
    uint8_t *out = to->text + to->used;
    char gap = to->gap;
    int begun = to->begun;
    int32_t bytes = 0;
    while (at < end) {
        int size, kind = kind_of(at, end, &size);
        if (kind == VISIBLE) {
            if (!begun) begin_line(to, node, 0), begun = 1;
            else if (gap) *out++ = (uint8_t)gap;
            gap = 0;
            bytes += size;
            for (int i = 0; i < size; i++) *out++ = at[i];
        } else if (kind == WHITE && begun && !gap) {
            gap = ' ';
        }
        at += size;
    }
    if (linked) to->line.linked += bytes;
    to->gap = gap;
    to->used = out - to->text;
}

/* ---- the page ---- */

/* The lines of a page in the order of its source; `failed` when there is no memory. */
static void read_lines(Lines *to, const HtmlTree *tree) {
    const HtmlNode *nodes = tree->nodes;
    int32_t blocks[HTML_DEPTH + 1], open = 0, links = 0, verbatim = 0; /* these end there */
    blocks[0] = 0;
    for (int32_t at = 0; at < tree->count && !to->failed;) {
        while (open && nodes[blocks[open]].last <= at) open--, line_edge(to, at < verbatim);
        const HtmlNode *node = nodes + at;
        int is = TAG_IS[node->tag];
        if (node->tag == TAG_text) {
            line_text(to, html_bytes(tree, node->start), node->size, blocks[open], at < links,
                      at < verbatim);
        } else if (is & UNREAD) {
            at = node->last;
            continue;
        } else if (is & EDGE) {
            line_edge(to, at < verbatim);
            if (at) blocks[++open] = at;
            if ((is & VERBATIM) && node->last > verbatim) verbatim = node->last;
        } else if (node->tag == TAG_br) {
            line_break(to, at < verbatim);
        } else if (node->tag == TAG_a && (node->flags & HTML_LINK) && node->last > links) {
            int to_itself = (node->flags & HTML_LOCAL_LINK) &&
                            (TAG_IS[nodes[blocks[open]].tag] & HEADINGS);
            if (!to_itself) links = node->last;
        }
        at++;
    }
    end_line(to);
}
