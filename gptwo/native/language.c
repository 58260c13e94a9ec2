/* The language of a text: fastText's classifier lid.176.ftz (Joulin et al. 2016), evaluated as its
   own library does it, sum for sum, so that labels and scores are the same bits.

   A text is the mean of the rows of its words and of their character 2- to 4-grams; a binary tree of
   logistic decisions leads from the mean to a label. What makes this quick: rows are unpacked once;
   hashes of n-grams grow by a character at a time; which of the two million buckets survived the
   pruning of the model is a bitmap that fits the second cache, and rows lie in the order of buckets,
   so that a bucket's row is the number of bits before its own. gptwo/corpus/cleaning/fasttext.py reads the
   file. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DIM = 16, LABELS = 176, BUCKETS = 2000000, MIN_GRAM = 2, MAX_GRAM = 4 };
enum { MOST_ROWS = 1 << 16, SLOTS = 1 << 15, MOST_WORDS = SLOTS / 2, MOST_BYTES = 1 << 18 };
enum { BLOCK = 512 }; /* rows gathered between two turns of adding */

typedef float Quarter __attribute__((vector_size(16), aligned(16)));

typedef struct {
    Quarter rows[MOST_ROWS][DIM / 4]; /* of words, then of buckets in their order */
    uint64_t kept[BUCKETS / 64];      /* a bit a bucket */
    uint16_t before[BUCKETS / 64];    /* bits set before this word of `kept` */
    uint16_t slots[SLOTS];            /* word + 1 by hash, 0 where none is */
    uint32_t hashes[MOST_WORDS], ends[MOST_WORDS];
    char bytes[MOST_BYTES]; /* the words, one after the other; `ends` says where each ends */
    int32_t words, end;     /* how many; which of them ends every text */
    int16_t children[2 * LABELS - 1][2]; /* of a node; nodes below LABELS are the labels */
    float decisions[LABELS - 1][DIM];    /* of the nodes above */
} Model;

/* The mean on its way. */
typedef struct {
    const Model *model;
    Quarter sum[DIM / 4];
    int64_t count;
    int held;
    uint16_t rows[BLOCK + 8];
} Reader;

static const char END[] = "</s>", LABEL[] = "__label__";

static void add_rows(Reader *r) {
    Quarter a = r->sum[0], b = r->sum[1], c = r->sum[2], d = r->sum[3];
    for (int i = 0; i < r->held; i++) {
        const Quarter *row = r->model->rows[r->rows[i]];
        a += row[0];
        b += row[1];
        c += row[2];
        d += row[3];
    }
    r->sum[0] = a;
    r->sum[1] = b;
    r->sum[2] = c;
    r->sum[3] = d;
    r->count += r->held;
    r->held = 0;
}

static inline uint32_t step(uint32_t hash, char byte) {
    return (hash ^ (uint32_t)(int32_t)(int8_t)byte) * 16777619u;
}

static const uint32_t START = 2166136261u;

static uint32_t hash_of(const char *word, int64_t size) {
    uint32_t hash = START;
    for (int64_t i = 0; i < size; i++) hash = step(hash, word[i]);
    return hash;
}

static inline void add_gram(Reader *r, uint32_t hash) {
    uint32_t bucket = hash % BUCKETS;
    uint64_t kept = r->model->kept[bucket >> 6], bit = UINT64_C(1) << (bucket & 63);
    if (!(kept & bit)) return;
    int rank = r->model->before[bucket >> 6] + __builtin_popcountll(kept & (bit - 1));
    r->rows[r->held++] = (uint16_t)(r->model->words + rank);
}

static inline int continues(char byte) { return (byte & 0xC0) == 0x80; }

/* Rows of the n-grams of <word>. Its two brackets are never read from memory. */
static void add_grams(Reader *r, const char *word, int64_t size) {
    for (int64_t i = -1; i <= size; i++) {
        if (i >= 0 && i < size && continues(word[i])) continue;
        if (r->held > BLOCK) add_rows(r);
        uint32_t hash = START;
        int64_t j = i;
        for (int n = 1; n <= MAX_GRAM && j <= size; n++) {
            hash = step(hash, j < 0 ? '<' : j == size ? '>' : word[j]);
            for (j++; j < size && continues(word[j]); j++) hash = step(hash, word[j]);
            if (n >= MIN_GRAM) add_gram(r, hash);
        }
    }
}

/* The number of a known word, -1 for any other. */
static int32_t find(const Model *m, const char *word, int64_t size, uint32_t hash) {
    for (uint32_t slot = hash % SLOTS; m->slots[slot]; slot = (slot + 1) % SLOTS) {
        int32_t known = m->slots[slot] - 1;
        uint32_t start = known ? m->ends[known - 1] + 1 : 0;
        if (m->hashes[known] == hash && m->ends[known] - start == size &&
            !memcmp(m->bytes + start, word, (size_t)size))
            return known;
    }
    return -1;
}

static int is_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\v' || c == '\f' || c == 0;
}

static void read_text(Reader *r, const char *at, const char *end) {
    const int64_t end_size = sizeof END - 1, label_size = sizeof LABEL - 1;
    while (at < end) {
        if (is_space(*at)) {
            at++;
            continue;
        }
        const char *word = at;
        uint32_t hash = START;
        while (at < end && !is_space(*at)) hash = step(hash, *at++);
        int64_t size = at - word;
        int32_t known = find(r->model, word, size, hash);
        int is_end = size == end_size && !memcmp(word, END, (size_t)end_size);
        if (is_end) break;
        if (known < 0 && size >= label_size && !memcmp(word, LABEL, (size_t)label_size)) continue;
        if (r->held > BLOCK) add_rows(r);
        if (known >= 0) r->rows[r->held++] = (uint16_t)known;
        add_grams(r, word, size);
    }
    r->rows[r->held++] = (uint16_t)r->model->end;
    add_rows(r);
}

/* ---- decisions ---- */

static float log_of(float x) { return (float)log(x + 1e-5); }

/* The likeliest label and the logarithm of its probability, by all paths that may still win. */
static int decide(const Model *m, const float *mean, float *best) {
    struct {
        int node;
        float score;
    } left[2 * LABELS] = {{2 * LABELS - 2, 0}};
    int count = 1, label = -1;
    while (count) {
        int node = left[--count].node;
        float score = left[count].score;
        if (label >= 0 && score < *best) continue;
        if (node < LABELS) {
            label = node;
            *best = score;
            continue;
        }
        float f = 0;
        for (int d = 0; d < DIM; d++) f += m->decisions[node - LABELS][d] * mean[d];
        f = (float)(1. / (1 + expf(-f)));
        left[count].node = m->children[node][1]; /* looked at after the other */
        left[count++].score = score + log_of(f);
        left[count].node = m->children[node][0];
        left[count++].score = score + log_of((float)(1. - f));
    }
    return label;
}

/* ---- the model ---- */

static void fill_words(Model *m, const char *words, int64_t size) {
    memcpy(m->bytes, words, (size_t)size);
    int64_t ends = 0;
    for (int64_t i = 0, start = 0; i < size; i++) { /* every word ends in a zero */
        if (words[i]) continue;
        uint32_t hash = hash_of(words + start, i - start);
        uint32_t slot = hash % SLOTS;
        while (m->slots[slot]) slot = (slot + 1) % SLOTS;
        m->hashes[ends] = hash;
        m->ends[ends++] = (uint32_t)i;
        m->slots[slot] = (uint16_t)ends;
        start = i + 1;
    }
}

/* Whether the children make one tree under the last node: every other node is a child once. */
static int is_tree(const int16_t *children) {
    uint8_t seen[2 * LABELS - 1] = {0};
    for (int node = 0; node < LABELS - 1; node++)
        for (int side = 0; side < 2; side++) {
            int child = children[2 * node + side];
            if (child < 0 || child >= node + LABELS || seen[child]++) return 0;
        }
    return 1;
}

static int fill_buckets(Model *m, const int32_t *buckets, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        if (buckets[i] < 0 || buckets[i] >= BUCKETS || (i && buckets[i] <= buckets[i - 1])) return 0;
        m->kept[buckets[i] >> 6] |= UINT64_C(1) << (buckets[i] & 63);
    }
    for (int i = 1; i < BUCKETS / 64; i++)
        m->before[i] = (uint16_t)(m->before[i - 1] + __builtin_popcountll(m->kept[i - 1]));
    return 1;
}

static void forget(PyObject *capsule) { free(PyCapsule_GetPointer(capsule, "language")); }

PyDoc_STRVAR(load_doc,
"load(words, buckets, rows, children, decisions) -> model\n\n"
"`words`: bytes, each ended by a zero, `</s>` among them; `buckets`: ascending int32; `rows`:\n"
"float32, 16 a word and then a bucket; `children`: two int16 of each of 175 inner nodes, whose\n"
"numbers follow those of the 176 labels; `decisions`: 16 float32 of each inner node.");

static PyObject *load(PyObject *self, PyObject *args) {
    Py_buffer words, buckets, rows, children, decisions;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*", &words, &buckets, &rows, &children, &decisions))
        return NULL;
    PyObject *made = NULL;
    Model *m = NULL;
    int64_t count = 0, kept = buckets.len / 4;
    for (int64_t i = 0; i < words.len; i++) count += !((const char *)words.buf)[i];
    int fits = words.len <= MOST_BYTES && count < MOST_WORDS && count + kept <= MOST_ROWS &&
               words.len > 0 && !((const char *)words.buf)[words.len - 1] &&
               rows.len == (count + kept) * DIM * 4 && decisions.len == (LABELS - 1) * DIM * 4 &&
               children.len == (LABELS - 1) * 4 && is_tree(children.buf);
    if (fits && (m = aligned_alloc(64, (sizeof *m + 63) / 64 * 64))) {
        memset(m, 0, sizeof *m);
        m->words = (int32_t)count;
        fill_words(m, words.buf, words.len);
        memcpy(m->rows, rows.buf, (size_t)rows.len);
        memcpy(m->children[LABELS], children.buf, (size_t)children.len);
        memcpy(m->decisions, decisions.buf, (size_t)decisions.len);
        m->end = find(m, END, sizeof END - 1, hash_of(END, sizeof END - 1));
        fits = fill_buckets(m, buckets.buf, kept) && m->end >= 0;
        if (fits) made = PyCapsule_New(m, "language", forget);
        if (!made) free(m);
    }
    if (!fits)
        PyErr_SetString(PyExc_ValueError, "language: not a model of the shape of lid.176.ftz");
    else if (!m)
        PyErr_NoMemory();
    PyBuffer_Release(&words);
    PyBuffer_Release(&buckets);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&children);
    PyBuffer_Release(&decisions);
    return made;
}

PyDoc_STRVAR(detect_doc,
"detect(model, text) -> label, score\n\n"
"The number of the likeliest label of a text in UTF-8 and its probability.");

static PyObject *detect(PyObject *self, PyObject *args) {
    PyObject *capsule;
    Py_buffer text;
    if (!PyArg_ParseTuple(args, "Oy*", &capsule, &text)) return NULL;
    const Model *m = PyCapsule_GetPointer(capsule, "language");
    int label = -1;
    float score = 0, mean[DIM];
    if (m) {
        Reader r = {.model = m};
        const char *at = text.buf;
        Py_BEGIN_ALLOW_THREADS
        read_text(&r, at, at + text.len);
        memcpy(mean, r.sum, sizeof mean);
        float share = (float)(1.0 / (double)r.count);
        for (int d = 0; d < DIM; d++) mean[d] *= share;
        label = decide(m, mean, &score);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&text);
    return m ? Py_BuildValue("if", label, expf(score)) : NULL;
}

static PyMethodDef methods[] = {
    {"load", load, METH_VARARGS, load_doc},
    {"detect", detect, METH_VARARGS, detect_doc},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_language", NULL, 0, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__language(void) { return PyModule_Create(&module); }
