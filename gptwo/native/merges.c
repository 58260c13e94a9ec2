/* Learning BPE merges: the inner loop of gptwo/tokens/learn.py, which holds its plain Python twin.

   Words (distinct pieces of text) are sequences of symbol ids with a count. Each step takes the most
   frequent adjacent pair, replaces it everywhere by a new symbol, and corrects the counts of the pairs
   around it. A heap holds pairs by count; entries may be out of date and are put right when they
   surface, which is sound because counts of existing pairs only fall and new pairs are pushed with
   their full count. Counts are 64-bit. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int32_t a, b;
    int64_t count;
    int32_t *words; /* words that held the pair when it was counted; may repeat */
    int32_t filled, room;
} Pair;

typedef struct {
    int64_t count;
    int32_t pair;
} Entry;

typedef struct {
    /* words */
    int32_t *symbols;   /* all words one after the other */
    int64_t *start;     /* where each word begins */
    int32_t *length;    /* its current length; merging shortens it in place */
    const int64_t *times;
    /* pairs, and an open-addressing table over them */
    Pair *pairs;
    int32_t pair_count, pair_room;
    int32_t *table;
    int64_t table_size; /* a power of two */
    /* heap of candidates */
    Entry *heap;
    int64_t heap_count, heap_room;
    /* spelling of each symbol, for the tie rule by bytes */
    unsigned char **bytes;
    int32_t *byte_length;
    int greatest;
    int failed; /* out of memory */
} State;

static uint64_t mix(int32_t a, int32_t b) {
    uint64_t x = ((uint64_t)(uint32_t)a << 32) | (uint32_t)b;
    x ^= x >> 31;
    x *= 0x9E3779B97F4A7C15ull;
    return x ^ (x >> 29);
}

static void *grown(void *memory, size_t bytes, State *s) {
    void *more = realloc(memory, bytes);
    if (!more) s->failed = 1;
    return more ? more : memory;
}

static void rehash(State *s) {
    int64_t size = s->table_size * 2;
    int32_t *table = malloc(size * sizeof(int32_t));
    if (!table) { s->failed = 1; return; }
    memset(table, 0xff, size * sizeof(int32_t));
    for (int32_t i = 0; i < s->pair_count; i++) {
        int64_t slot = mix(s->pairs[i].a, s->pairs[i].b) & (size - 1);
        while (table[slot] >= 0) slot = (slot + 1) & (size - 1);
        table[slot] = i;
    }
    free(s->table);
    s->table = table;
    s->table_size = size;
}

/* The index of a pair, made when it is new; -1 without memory. */
static int32_t find(State *s, int32_t a, int32_t b) {
    if ((int64_t)s->pair_count * 2 >= s->table_size) rehash(s);
    if (s->failed) return -1;
    int64_t slot = mix(a, b) & (s->table_size - 1);
    while (s->table[slot] >= 0) {
        Pair *p = &s->pairs[s->table[slot]];
        if (p->a == a && p->b == b) return s->table[slot];
        slot = (slot + 1) & (s->table_size - 1);
    }
    if (s->pair_count == s->pair_room) {
        int32_t room = s->pair_room * 2;
        s->pairs = grown(s->pairs, room * sizeof(Pair), s);
        if (s->failed) return -1;
        s->pair_room = room;
    }
    s->pairs[s->pair_count] = (Pair){a, b, 0, NULL, 0, 0};
    s->table[slot] = s->pair_count;
    return s->pair_count++;
}

static void add_word(State *s, int32_t pair, int32_t word) {
    Pair *p = &s->pairs[pair];
    if (p->filled && p->words[p->filled - 1] == word) return;
    if (p->filled == p->room) {
        int32_t room = p->room ? p->room * 2 : 4;
        p->words = grown(p->words, room * sizeof(int32_t), s);
        if (s->failed) return;
        p->room = room;
    }
    p->words[p->filled++] = word;
}

static int compare_bytes(State *s, int32_t a, int32_t b) {
    int32_t shorter = s->byte_length[a] < s->byte_length[b] ? s->byte_length[a] : s->byte_length[b];
    int order = memcmp(s->bytes[a], s->bytes[b], shorter);
    return order ? order : s->byte_length[a] - s->byte_length[b];
}

/* Whether x comes before y: more frequent, then by the tie rule. */
static int before(State *s, Entry x, Entry y) {
    if (x.count != y.count) return x.count > y.count;
    Pair *p = &s->pairs[x.pair], *q = &s->pairs[y.pair];
    if (s->greatest) {
        int order = compare_bytes(s, p->a, q->a);
        return (order ? order : compare_bytes(s, p->b, q->b)) > 0;
    }
    return p->a != q->a ? p->a < q->a : p->b < q->b;
}

static void push(State *s, int32_t pair) {
    if (s->heap_count == s->heap_room) {
        int64_t room = s->heap_room * 2;
        s->heap = grown(s->heap, room * sizeof(Entry), s);
        if (s->failed) return;
        s->heap_room = room;
    }
    Entry entry = {s->pairs[pair].count, pair};
    int64_t i = s->heap_count++;
    while (i && before(s, entry, s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = entry;
}

static Entry pop(State *s) {
    Entry top = s->heap[0], last = s->heap[--s->heap_count];
    int64_t i = 0;
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= s->heap_count) break;
        if (child + 1 < s->heap_count && before(s, s->heap[child + 1], s->heap[child])) child++;
        if (!before(s, s->heap[child], last)) break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

/* Count a neighbour pair up or down; pairs that appear are noted in `fresh` to be pushed. */
static void change(State *s, int32_t a, int32_t b, int64_t by, int32_t word, int32_t made) {
    int32_t pair = find(s, a, b);
    if (pair < 0) return;
    s->pairs[pair].count += by;
    if (by > 0 && (a == made || b == made)) add_word(s, pair, word);
}

/* Replace (a, b) by `made` in one word. */
static void merge_word(State *s, int32_t word, int32_t a, int32_t b, int32_t made) {
    int32_t *w = s->symbols + s->start[word], n = s->length[word], out = 0;
    int64_t times = s->times[word];
    for (int32_t i = 0; i < n; i++) {
        if (i + 1 < n && w[i] == a && w[i + 1] == b) {
            if (out) {
                change(s, w[out - 1], a, -times, word, made);
                change(s, w[out - 1], made, times, word, made);
            }
            if (i + 2 < n) {
                change(s, b, w[i + 2], -times, word, made);
                change(s, made, w[i + 2], times, word, made);
            }
            w[out++] = made;
            i++;
        } else {
            w[out++] = w[i];
        }
    }
    s->length[word] = out;
}

static int spell(State *s, int32_t made, int32_t a, int32_t b) {
    int32_t n = s->byte_length[a] + s->byte_length[b];
    unsigned char *text = malloc(n);
    if (!text) { s->failed = 1; return 0; }
    memcpy(text, s->bytes[a], s->byte_length[a]);
    memcpy(text + s->byte_length[a], s->bytes[b], s->byte_length[b]);
    s->bytes[made] = text;
    s->byte_length[made] = n;
    return 1;
}

static void count_pairs(State *s, int64_t words) {
    for (int64_t word = 0; word < words && !s->failed; word++) {
        int32_t *w = s->symbols + s->start[word];
        for (int32_t i = 0; i + 1 < s->length[word]; i++) {
            int32_t pair = find(s, w[i], w[i + 1]);
            if (pair < 0) return;
            s->pairs[pair].count += s->times[word];
            add_word(s, pair, (int32_t)word);
        }
    }
    for (int32_t pair = 0; pair < s->pair_count && !s->failed; pair++) push(s, pair);
}

/* Make up to `most` merges into `merges` (pairs of ids); returns how many. */
static int64_t run(State *s, int64_t words, int64_t most, int32_t *merges) {
    int64_t done = 0;
    count_pairs(s, words);
    while (done < most && s->heap_count && !s->failed) {
        Entry top = pop(s);
        Pair *p = &s->pairs[top.pair];
        if (p->count < 1) continue;
        if (p->count != top.count) { push(s, top.pair); continue; }
        int32_t a = p->a, b = p->b, made = 256 + (int32_t)done;
        if (!spell(s, made, a, b)) break;
        merges[2 * done] = a;
        merges[2 * done + 1] = b;
        done++;
        int32_t *held = p->words, filled = p->filled, first = s->pair_count;
        p->words = NULL;
        p->filled = p->room = 0;
        p->count = 0;
        for (int32_t k = 0; k < filled && !s->failed; k++) {
            if (k && held[k] == held[k - 1]) continue;
            merge_word(s, held[k], a, b, made);
        }
        free(held);
        s->pairs[top.pair].count = 0;
        for (int32_t pair = first; pair < s->pair_count && !s->failed; pair++)
            if (s->pairs[pair].count > 0) push(s, pair);
    }
    return done;
}

static void release(State *s, int64_t symbols) {
    for (int32_t i = 0; i < s->pair_count; i++) free(s->pairs[i].words);
    if (s->bytes)
        for (int64_t i = 0; i < symbols; i++) free(s->bytes[i]);
    free(s->bytes);
    free(s->byte_length);
    free(s->pairs);
    free(s->table);
    free(s->heap);
    free(s->symbols);
    free(s->start);
}

static int prepare(State *s, const Py_buffer *text, const Py_buffer *order, int64_t words,
                   int64_t symbols) {
    const unsigned char *ids = text->buf;
    s->pair_room = 1 << 16;
    s->table_size = 1 << 18;
    s->heap_room = 1 << 16;
    s->pairs = malloc(s->pair_room * sizeof(Pair));
    s->table = malloc(s->table_size * sizeof(int32_t));
    s->heap = malloc(s->heap_room * sizeof(Entry));
    s->symbols = malloc((text->len + 1) * sizeof(int32_t));
    s->start = malloc((words + 1) * sizeof(int64_t));
    s->bytes = calloc(symbols, sizeof(unsigned char *));
    s->byte_length = calloc(symbols, sizeof(int32_t));
    if (!s->pairs || !s->table || !s->heap || !s->symbols || !s->start || !s->bytes ||
        !s->byte_length)
        return 0;
    memset(s->table, 0xff, s->table_size * sizeof(int32_t));
    for (Py_ssize_t i = 0; i < text->len; i++) s->symbols[i] = ids[i];
    s->start[0] = 0;
    for (int64_t i = 0; i < words; i++) s->start[i + 1] = s->start[i] + s->length[i];
    for (int i = 0; i < 256; i++) {
        s->bytes[i] = malloc(1);
        if (!s->bytes[i]) return 0;
        s->bytes[i][0] = ((const unsigned char *)order->buf)[i];
        s->byte_length[i] = 1;
    }
    return 1;
}

PyDoc_STRVAR(learn_doc,
"learn(symbols, lengths, counts, order, most, greatest) -> bytes\n\n"
"symbols: ids 0..255 of all words, one byte each; lengths: int32 per word (overwritten);\n"
"counts: int64 per word; order: the byte each id 0..255 stands for; most: merges wanted;\n"
"greatest: tie rule by bytes. Returns the merges as int32 pairs of ids.");

static PyObject *learn(PyObject *self, PyObject *args) {
    Py_buffer text, lengths, counts, order;
    long long most;
    int greatest;
    if (!PyArg_ParseTuple(args, "y*w*y*y*Lp", &text, &lengths, &counts, &order, &most, &greatest))
        return NULL;
    int64_t words = lengths.len / (int64_t)sizeof(int32_t), total = 0, done = 0;
    PyObject *result = NULL;
    int32_t *merges = NULL;
    State s = {0};
    s.length = lengths.buf;
    s.times = counts.buf;
    s.greatest = greatest;
    for (int64_t i = 0; i < words; i++) total += s.length[i] < 0 ? INT32_MAX : s.length[i];
    if (counts.len != words * (int64_t)sizeof(int64_t) || order.len != 256 || most < 0 ||
        most > INT32_MAX - 256 || words > INT32_MAX || total != text.len) {
        PyErr_SetString(PyExc_ValueError, "learn: lengths, counts and symbols do not agree");
    } else {
        Py_BEGIN_ALLOW_THREADS
        merges = malloc((most + 1) * 2 * sizeof(int32_t));
        s.failed = !merges || !prepare(&s, &text, &order, words, 256 + most);
        if (!s.failed) done = run(&s, words, most, merges);
        Py_END_ALLOW_THREADS
        if (s.failed) PyErr_NoMemory();
        else result = PyBytes_FromStringAndSize((char *)merges, done * 2 * sizeof(int32_t));
    }
    free(merges);
    release(&s, 256 + most);
    PyBuffer_Release(&text);
    PyBuffer_Release(&lengths);
    PyBuffer_Release(&counts);
    PyBuffer_Release(&order);
    return result;
}

static PyMethodDef methods[] = {{"learn", learn, METH_VARARGS, learn_doc}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_merges", NULL, -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__merges(void) { return PyModule_Create(&module); }
