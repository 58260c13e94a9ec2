/* What the quality rules look at: words, lines and how much of a text repeats. gptwo/corpus/cleaning/prose.py
   says what is counted, and has the plain twin.

   A string is read once, in whatever width Python keeps it, with Python's own tables of spaces and
   letters. Lines, paragraphs and words are told apart by content, never by hash alone. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SHORT_LINE = 30, TOP_FIRST = 2, TOP_LAST = 4, GRAM_LAST = 10 };
enum { SPACE = 1, ALPHA = 2, ALNUM = 4, MARK = 8 };

static const char *const STOP_WORDS[] = {"the", "be", "to", "of", "and", "that", "have", "with"};
enum { STOP_COUNT = sizeof STOP_WORDS / sizeof *STOP_WORDS, STOP_LONGEST = 4 };

static uint8_t ascii[128]; /* the classes of each character */

typedef struct {
    const void *data;
    int kind; /* bytes a character */
    int64_t size;
} Text;

static inline Py_UCS4 at(const Text *t, int64_t i) { return PyUnicode_READ(t->kind, t->data, i); }

static inline int class_of(Py_UCS4 c) {
    if (c < 128) return ascii[c];
    return Py_UNICODE_ISSPACE(c) ? SPACE
         : c == 0x2026 ? MARK
         : Py_UNICODE_ISALPHA(c) ? ALPHA | ALNUM
         : Py_UNICODE_ISALNUM(c) ? ALNUM : 0;
}

/* ---- stretches of a text, told apart by content ---- */

typedef struct {
    int64_t start, size;
    uint64_t hash;
} Part;

typedef struct {
    Part *at;
    int64_t count, room;
} Parts;

static int add_part(Parts *parts, Part part) {
    if (parts->count == INT32_MAX - 1) return 0; /* their numbers are 32 bits */
    if (parts->count == parts->room) {
        int64_t room = parts->room * 2 + 64;
        Part *grown = realloc(parts->at, (size_t)room * sizeof *grown);
        if (!grown) return 0;
        parts->at = grown;
        parts->room = room;
    }
    parts->at[parts->count++] = part;
    return 1;
}

/* Spread every input bit over all output bits (the finaliser of splitmix64). */
static inline uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

static uint64_t hash_of(const Text *t, int64_t start, int64_t size) {
    const char *data = (const char *)t->data + start * t->kind;
    uint64_t hash = (uint64_t)size, piece;
    for (size *= t->kind; size >= 8; size -= 8, data += 8) {
        memcpy(&piece, data, 8);
        hash = (hash ^ piece) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    piece = 0;
    memcpy(&piece, data, (size_t)size);
    return mix(hash ^ piece);
}

static inline int same(const Text *t, Part a, Part b) {
    const char *data = t->data;
    return a.hash == b.hash && a.size == b.size &&
           !memcmp(data + a.start * t->kind, data + b.start * t->kind, (size_t)(a.size * t->kind));
}

/* A power of two above twice `count`. */
static int64_t slots_for(int64_t count) {
    int64_t slots = 16;
    while (slots < 2 * count) slots *= 2;
    return slots;
}

/* Give equal parts the same number, numbers in the order of first parts: `ids`. 0 without memory. */
static int number(const Text *t, const Parts *parts, int32_t *ids, int64_t *distinct) {
    int64_t slots = slots_for(parts->count), next = 0;
    int32_t *table = calloc((size_t)slots, sizeof *table); /* a part + 1 */
    if (!table) return 0;
    for (int64_t i = 0; i < parts->count; i++) {
        int64_t slot = (int64_t)(parts->at[i].hash & (uint64_t)(slots - 1));
        while (table[slot] && !same(t, parts->at[table[slot] - 1], parts->at[i]))
            slot = (slot + 1) & (slots - 1);
        if (!table[slot]) {
            table[slot] = (int32_t)(i + 1);
            ids[i] = (int32_t)next++;
        } else {
            ids[i] = ids[table[slot] - 1];
        }
    }
    free(table);
    *distinct = next;
    return 1;
}

/* How many parts stood before, and their characters. */
static int count_repeats(const Text *t, const Parts *parts, int64_t *repeats, int64_t *characters) {
    *repeats = *characters = 0;
    if (parts->count < 2) return 1;
    int64_t distinct, next = 0;
    int32_t *ids = malloc((size_t)parts->count * sizeof *ids);
    int done = ids && number(t, parts, ids, &distinct);
    for (int64_t i = 0; done && i < parts->count; i++) {
        if (ids[i] == next) {
            next++;
        } else {
            ++*repeats;
            *characters += parts->at[i].size;
        }
    }
    free(ids);
    return done;
}

/* A stretch on its way: from its first character that is no space to the latest. */
typedef struct {
    int64_t first, last; /* first is -1 before there is one */
} Open;

static const Open CLOSED = {-1, -1};

static inline void extend(Open *open, int64_t i) {
    if (open->first < 0) open->first = i;
    open->last = i;
}

/* Close a stretch: 0 without memory. One without a character is none. */
static int close_part(Open *open, const Text *t, Parts *parts) {
    Part part = {open->first, open->last + 1 - open->first, 0};
    *open = CLOSED;
    if (part.start < 0) return 1;
    part.hash = hash_of(t, part.start, part.size);
    return add_part(parts, part);
}

/* ---- counts ---- */

/* In the order of Counts in gptwo/corpus/cleaning/prose.py. */
#define COUNTS(X) \
    X(characters) X(newlines) X(letters) X(hashes) X(ellipses) X(words) X(word_characters) \
    X(named_words) X(named_characters) X(lettered_words) X(stop_words) X(sentences) X(lines) \
    X(line_characters) X(bullet_lines) X(ellipsis_lines) X(ended_lines) X(short_lines) \
    X(repeated_lines) X(repeated_line_characters) X(paragraphs) X(repeated_paragraphs) \
    X(repeated_paragraph_characters)
#define FIELD(name) name,
enum { COUNTS(FIELD) FIELDS };

typedef struct {
    int64_t of[FIELDS];
    Parts line_parts, paragraph_parts;
    unsigned stops; /* a bit for each stop word that was found */
    int ended;      /* whether the latest word ended a sentence */
} Counter;

static int is_quote(Py_UCS4 c) { return c == '"' || c == '\'' || c == 0x201D || c == 0x2019; }

static int ends_sentence(Py_UCS4 c) { return c == '.' || c == '!' || c == '?'; }

static int is_bullet(Py_UCS4 c) {
    return c == '-' || c == '*' || c == 0x2022 || c == 0x2023 || c == 0x25AA || c == 0x25CF ||
           c == 0x2013;
}

static unsigned stop_bit(const Text *t, int64_t start, int64_t size) {
    char word[STOP_LONGEST + 1] = {0};
    if (size > STOP_LONGEST) return 0;
    for (int64_t i = 0; i < size; i++) {
        Py_UCS4 c = at(t, start + i);
        if (c >= 128) return 0;
        word[i] = (char)Py_TOLOWER(c);
    }
    for (int i = 0; i < STOP_COUNT; i++)
        if (!strcmp(word, STOP_WORDS[i])) return 1u << i;
    return 0;
}

static void count_word(Counter *n, const Text *t, int64_t start, int64_t end, int classes) {
    n->of[words]++;
    n->of[word_characters] += end - start;
    n->of[lettered_words] += !!(classes & ALPHA);
    if (classes & ALNUM) {
        n->of[named_words]++;
        n->of[named_characters] += end - start;
    }
    n->stops |= stop_bit(t, start, end - start);
    while (end > start && (is_quote(at(t, end - 1)) || at(t, end - 1) == ')')) end--;
    n->ended = end > start && ends_sentence(at(t, end - 1));
    n->of[sentences] += n->ended;
}

static void count_line(Counter *n, const Text *t, int64_t first, int64_t last) {
    Py_UCS4 c = at(t, last);
    n->of[lines]++;
    n->of[sentences] += !n->ended;
    n->of[line_characters] += last + 1 - first;
    n->of[bullet_lines] += is_bullet(at(t, first));
    n->of[ellipsis_lines] += c == 0x2026 || (last - first >= 2 && c == '.' &&
                                             at(t, last - 1) == '.' && at(t, last - 2) == '.');
    n->of[ended_lines] += ends_sentence(c) || is_quote(c);
    n->of[short_lines] += last + 1 - first <= SHORT_LINE;
}

/* Count what is no letter, digit or space by itself. */
static inline void count_mark(Counter *n, Py_UCS4 c, int64_t *dots) {
    n->of[hashes] += c == '#';
    *dots = c == '.' ? *dots + 1 : 0;
    if (c != 0x2026 && *dots < 3) return;
    n->of[ellipses]++;
    *dots = 0;
}

/* Read a text to its end; a newline is taken to follow. 0 without memory. */
static inline int read_text(Counter *n, const Text *t) {
    Open line = CLOSED, paragraph = CLOSED, word = CLOSED;
    int64_t dots = 0, breaks = 0, found = 0;
    int classes = 0;
    for (int64_t i = 0; i <= t->size; i++) {
        Py_UCS4 c = i < t->size ? at(t, i) : '\n';
        int class = class_of(c);
        if (!(class & SPACE)) {
            extend(&word, i);
            classes |= class;
            found += !!(class & ALPHA);
            if (class & MARK) count_mark(n, c, &dots);
            else dots = 0;
            continue;
        }
        if (word.first >= 0) {
            count_word(n, t, word.first, i, classes);
            extend(&line, word.first);
            line.last = i - 1;
            word = CLOSED;
            classes = breaks = 0;
        }
        dots = 0;
        if (c != '\n') {
            breaks = 0;
            continue;
        }
        n->of[newlines] += i < t->size;
        if (line.first >= 0) {
            count_line(n, t, line.first, line.last);
            extend(&paragraph, line.first);
            paragraph.last = line.last;
        }
        if (!close_part(&line, t, &n->line_parts)) return 0;
        if ((++breaks >= 2 || i == t->size) && !close_part(&paragraph, t, &n->paragraph_parts))
            return 0;
    }
    n->of[letters] = found;
    return 1;
}

/* The same, compiled for each width of a character. */
static int read_kind(Counter *n, const Text *t) {
    switch (t->kind) {
    case 1: return read_text(n, &(Text){t->data, 1, t->size});
    case 2: return read_text(n, &(Text){t->data, 2, t->size});
    default: return read_text(n, t);
    }
}

static int finish(Counter *n, const Text *t) {
    n->of[characters] = t->size;
    n->of[paragraphs] = n->paragraph_parts.count;
    for (int i = 0; i < STOP_COUNT; i++) n->of[stop_words] += n->stops >> i & 1;
    return count_repeats(t, &n->line_parts, &n->of[repeated_lines],
                         &n->of[repeated_line_characters]) &&
           count_repeats(t, &n->paragraph_parts, &n->of[repeated_paragraphs],
                         &n->of[repeated_paragraph_characters]);
}

/* ---- n-grams of words ---- */

static int find_words(const Text *t, Parts *parts) {
    Open word = CLOSED;
    for (int64_t i = 0; i <= t->size; i++) {
        Py_UCS4 c = i < t->size ? at(t, i) : ' ';
        if (!(class_of(c) & SPACE))
            extend(&word, i);
        else if (!close_part(&word, t, parts))
            return 0;
    }
    return 1;
}

/* Numbers of the n-grams of a text, which begin at each word, and how often each number occurs. An
   n-gram is a pair: the (n-1)-gram that begins where it does, and its last word. */
typedef struct {
    int64_t words, slots;
    const int32_t *word_ids;
    int32_t *ids, *counts, *counts_before, *table_ids;
    uint64_t *table_keys;
} Grams;

/* From (n-1)-grams to n-grams; the number of n-grams that stood before. */
static int64_t lengthen(Grams *g, int n) {
    int32_t next = 0;
    int64_t grams = g->words - n + 1;
    int32_t *swap = g->counts_before;
    g->counts_before = g->counts;
    g->counts = swap;
    memset(g->table_ids, 0, (size_t)g->slots * sizeof *g->table_ids); /* an id + 1 */
    for (int64_t i = 0; i < grams; i++) {
        int32_t before = g->ids[i];
        int32_t id = next;
        /* What begins or ends with something unique is unique. */
        if (g->counts_before[before] > 1 && g->counts_before[g->ids[i + 1]] > 1) {
            uint64_t key = (uint64_t)before << 32 | (uint32_t)g->word_ids[i + n - 1];
            int64_t slot = (int64_t)(mix(key) & (uint64_t)(g->slots - 1));
            while (g->table_ids[slot] && g->table_keys[slot] != key)
                slot = (slot + 1) & (g->slots - 1);
            if (g->table_ids[slot]) {
                id = g->table_ids[slot] - 1;
            } else {
                g->table_ids[slot] = id + 1;
                g->table_keys[slot] = key;
            }
        }
        g->ids[i] = id;
        if (id == next) g->counts[next++] = 0;
        g->counts[id]++;
    }
    return grams - next;
}

/* Characters of all occurrences of the n-gram that occurs most (of several the first), with one
   space between words. */
static int64_t top_characters(const Grams *g, const Parts *parts, int n) {
    int64_t best = 0, size = n - 1;
    int32_t most = 1;
    for (int64_t i = 0; i <= g->words - n; i++)
        if (g->counts[g->ids[i]] > most) most = g->counts[g->ids[best = i]];
    for (int k = 0; k < n; k++) size += parts->at[best + k].size;
    return size * most;
}

/* Characters of the n-grams that stood before, none counted twice. */
static int64_t repeated_characters(const Grams *g, const Parts *parts, int n, uint8_t *seen) {
    int64_t characters = 0;
    memset(seen, 0, (size_t)g->words);
    for (int64_t i = 0; i <= g->words - n;) {
        if (!seen[g->ids[i]]) {
            seen[g->ids[i++]] = 1;
            continue;
        }
        for (int k = 0; k < n; k++) characters += parts->at[i++].size;
    }
    return characters;
}

/* `found`: of the most frequent 2- to 4-grams, then of the repeated 5- to 10-grams. */
static int read_grams(const Text *t, const Parts *parts, int64_t *found) {
    int64_t words = parts->count, distinct = 0, slots = slots_for(words);
    if (words < 2) return 1;
    int32_t *numbers = malloc((size_t)words * 4 * sizeof *numbers);
    int32_t *table_ids = malloc((size_t)slots * sizeof *table_ids);
    uint64_t *table_keys = malloc((size_t)slots * sizeof *table_keys);
    uint8_t *seen = malloc((size_t)words);
    int done = numbers && table_ids && table_keys && seen && number(t, parts, numbers, &distinct);
    if (done) {
        Grams g = {words, slots, numbers, numbers + words, numbers + 2 * words, numbers + 3 * words,
                   table_ids, table_keys};
        memcpy(g.ids, numbers, (size_t)words * sizeof *numbers);
        memset(g.counts, 0, (size_t)words * sizeof *numbers);
        for (int64_t i = 0; i < words; i++) g.counts[numbers[i]]++;
        for (int n = TOP_FIRST; n <= GRAM_LAST && n <= words && lengthen(&g, n); n++)
            found[n - TOP_FIRST] = n <= TOP_LAST ? top_characters(&g, parts, n)
                                                 : repeated_characters(&g, parts, n, seen);
    }
    free(numbers);
    free(table_ids);
    free(table_keys);
    free(seen);
    return done;
}

/* ---- Python ---- */

static PyObject *numbers_of(const int64_t *values, int count) {
    PyObject *made = PyTuple_New(count);
    for (int i = 0; made && i < count; i++) {
        PyObject *value = PyLong_FromLongLong(values[i]);
        if (!value) Py_CLEAR(made);
        else PyTuple_SET_ITEM(made, i, value);
    }
    return made;
}

static int text_of(PyObject *object, Text *t) {
    if (!PyUnicode_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "prose: a string was expected");
        return 0;
    }
    *t = (Text){PyUnicode_DATA(object), PyUnicode_KIND(object), PyUnicode_GET_LENGTH(object)};
    return 1;
}

PyDoc_STRVAR(count_doc, "count(text) -> the numbers of gptwo.corpus.cleaning.prose.Counts");

static PyObject *count(PyObject *module, PyObject *object) {
    Text t;
    if (!text_of(object, &t)) return NULL;
    Counter n = {0};
    int done = read_kind(&n, &t) && finish(&n, &t);
    free(n.line_parts.at);
    free(n.paragraph_parts.at);
    return done ? numbers_of(n.of, FIELDS) : PyErr_NoMemory();
}

PyDoc_STRVAR(repeats_doc, "repeats(text) -> the numbers of gptwo.corpus.cleaning.prose.plain_repeats");

static PyObject *repeats(PyObject *module, PyObject *object) {
    Text t;
    if (!text_of(object, &t)) return NULL;
    Parts parts = {0};
    int64_t found[GRAM_LAST - TOP_FIRST + 1] = {0};
    int done = find_words(&t, &parts) && read_grams(&t, &parts, found);
    free(parts.at);
    return done ? numbers_of(found, GRAM_LAST - TOP_FIRST + 1) : PyErr_NoMemory();
}

static PyMethodDef methods[] = {
    {"count", count, METH_O, count_doc},
    {"repeats", repeats, METH_O, repeats_doc},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_prose", NULL, 0, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__prose(void) {
    for (int c = 0; c < 128; c++)
        ascii[c] = (uint8_t)((Py_UNICODE_ISSPACE((Py_UCS4)c) ? SPACE : 0) |
                             (Py_ISALPHA(c) ? ALPHA : 0) | (Py_ISALNUM(c) ? ALNUM : 0) |
                             (c == '#' || c == '.' ? MARK : 0));
    return PyModule_Create(&module);
}
