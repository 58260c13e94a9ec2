/* The elementwise parts of a training step on a processor: gptwo/training/kernels.py calls them, and
   gptwo/training/fast.py says how they belong together. Matrix products and attention are torch's.

   Numbers are float32, arrays are contiguous and come as addresses. Work is cut into as many parts as
   torch has threads, always at the same places; sums over rows are made part by part and added up in
   the order of the parts, so that the bits depend on the number of threads alone. The parts run on
   torch's own pool of threads: a second pool would fight it for the processor. */
#define PY_SSIZE_T_CLEAN
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* RTLD_DEFAULT */
#endif
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif

/* Compiled for several instruction sets where the loader can choose among them. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__)
#define CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define CLONES
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

enum { LANES = 32, MOST_PARTS = 1024 };

/* ---- threads ---- */

typedef void (*Work)(const void *job, int64_t first, int64_t end, int64_t part);

typedef struct {
    Work work;
    const void *job;
    int64_t rows, parts;
} Team;

/* libgomp's entry points, which libomp has too; torch has loaded one of them. */
static void (*run_parallel)(void (*)(void *), void *, unsigned, unsigned);
static int (*own_number)(void);
static int (*team_size)(void);

static void find_pool(void) {
#if defined(__unix__) || defined(__APPLE__)
    *(void **)&run_parallel = dlsym(RTLD_DEFAULT, "GOMP_parallel");
    *(void **)&own_number = dlsym(RTLD_DEFAULT, "omp_get_thread_num");
    *(void **)&team_size = dlsym(RTLD_DEFAULT, "omp_get_num_threads");
#endif
    if (!own_number || !team_size) run_parallel = NULL;
}

static void do_part(const Team *team, int64_t part) {
    int64_t first = team->rows * part / team->parts, end = team->rows * (part + 1) / team->parts;
    if (first < end) team->work(team->job, first, end, part);
}

static void member(void *argument) {
    const Team *team = argument;
    int64_t size = team_size(); /* may be fewer than asked for */
    for (int64_t part = own_number(); part < team->parts; part += size) do_part(team, part);
}

static void in_parts(Work work, const void *job, int64_t rows, int64_t parts) {
    Team team = {work, job, rows, parts};
    if (run_parallel && parts > 1) {
        run_parallel(member, &team, (unsigned)parts, 0);
    } else {
        for (int64_t part = 0; part < parts; part++) do_part(&team, part);
    }
}

/* ---- functions of one number, written so that compilers make vectors of them ---- */

/* e^x to within 2 units in the last place; 0 for x below -87. */
INLINE float exponential(float x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    float low = x < -87.0f ? -87.0f : x;
    low = low > 88.0f ? 88.0f : low;
    float shifted = low * 1.44269504f + magic;
    float k = shifted - magic;
    float r = low - k * 0.693145752f - k * 1.42860677e-6f; /* |r| <= ln(2) / 2 */
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000u; /* 2^k */
    float power;
    memcpy(&power, &bits, sizeof power);
    return x < -87.0f ? 0.0f : p * power;
}

/* GELU in its tanh form is x sigmoid(z), z = 2 sqrt(2 / pi) (x + 0.044715 x^3). */
INLINE float gate(float x) {
    return 1.0f / (1.0f + exponential(-1.59576912f * (x + 0.044715f * x * x * x)));
}

INLINE float gelu_slope(float x, float gated) {
    return gated + x * gated * (1.0f - gated) * 1.59576912f * (1.0f + 0.134145f * x * x);
}

/* Sums have LANES parts, which is how a compiler may use vectors without changing what is meant. */
INLINE float add_lanes(const float *lanes) {
    float sum = 0.0f;
    for (int l = 0; l < LANES; l++) sum += lanes[l];
    return sum;
}

/* ---- cross-entropy ---- */

typedef struct {
    float *logits, *losses;
    const int64_t *targets;
    int64_t width;
    float scale;
    int slopes;
} Entropy;

/* A row of logits becomes the slope of its loss, times `scale`. */
CLONES
static void entropy_rows(const void *job, int64_t first, int64_t end, int64_t part) {
    const Entropy *e = job;
    int64_t V = e->width, whole = V - V % LANES;
    (void)part;
    for (int64_t row = first; row < end; row++) {
        float *restrict x = e->logits + row * V;
        float most = -INFINITY, lanes[LANES], chosen = x[e->targets[row]];
        for (int l = 0; l < LANES; l++) lanes[l] = -INFINITY;
        for (int64_t i = 0; i < whole; i += LANES)
            for (int l = 0; l < LANES; l++) lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
        for (int l = 0; l < LANES; l++) most = lanes[l] > most ? lanes[l] : most;
        for (int64_t i = whole; i < V; i++) most = x[i] > most ? x[i] : most;

        for (int l = 0; l < LANES; l++) lanes[l] = 0.0f;
        for (int64_t i = 0; i < whole; i += LANES)
            for (int l = 0; l < LANES; l++) {
                float value = exponential(x[i + l] - most);
                x[i + l] = value;
                lanes[l] += value;
            }
        float sum = 0.0f;
        for (int64_t i = whole; i < V; i++) sum += x[i] = exponential(x[i] - most);
        sum += add_lanes(lanes);
        /* Not a number anywhere, or an infinite logit, must show in the loss: a comparison or a
           clamp above may have hidden it. */
        e->losses[row] = logf(sum) + (most - chosen);
        if (!e->slopes) continue;
        float factor = e->scale / sum;
        for (int64_t i = 0; i < V; i++) x[i] *= factor;
        x[e->targets[row]] -= e->scale;
    }
}

/* ---- layer normalisation of a stream to which a branch is added ---- */

typedef struct {
    const float *x, *branch, *bias, *gain, *shift; /* branch and bias may be NULL */
    float *sum, *out, *stats;                      /* stats: mean, 1 / deviation of each row */
    int64_t width;
    float epsilon;
} Norm;

CLONES
static void norm_rows(const void *job, int64_t first, int64_t end, int64_t part) {
    const Norm *n = job;
    int64_t C = n->width, whole = C - C % LANES;
    (void)part;
    for (int64_t row = first; row < end; row++) {
        const float *restrict s = n->x + row * C;
        if (n->branch) {
            const float *restrict x = s, *restrict b = n->branch + row * C;
            float *restrict sum = n->sum + row * C;
            for (int64_t i = 0; i < C; i++) sum[i] = x[i] + (b[i] + n->bias[i]);
            s = sum;
        }
        float lanes[LANES] = {0}, mean = 0.0f, variance = 0.0f;
        for (int64_t i = 0; i < whole; i += LANES)
            for (int l = 0; l < LANES; l++) lanes[l] += s[i + l];
        for (int64_t i = whole; i < C; i++) mean += s[i];
        mean = (mean + add_lanes(lanes)) / (float)C;
        for (int l = 0; l < LANES; l++) lanes[l] = 0.0f;
        for (int64_t i = 0; i < whole; i += LANES)
            for (int l = 0; l < LANES; l++) lanes[l] += (s[i + l] - mean) * (s[i + l] - mean);
        for (int64_t i = whole; i < C; i++) variance += (s[i] - mean) * (s[i] - mean);
        float scale = 1.0f / sqrtf((variance + add_lanes(lanes)) / (float)C + n->epsilon);
        float *restrict out = n->out + row * C;
        for (int64_t i = 0; i < C; i++) out[i] = (s[i] - mean) * scale * n->gain[i] + n->shift[i];
        n->stats[2 * row] = mean;
        n->stats[2 * row + 1] = scale;
    }
}

typedef struct {
    const float *x, *stats, *gain, *slope, *stream; /* stream: the slope past the norm, or NULL */
    float *out, *sums;                              /* sums: (parts, 3, C), zeros at first */
    int64_t width;
} NormBack;

/* sums: of the slopes of the gain, of the shift, and of what is added to every row before. */
CLONES
static void norm_back_rows(const void *job, int64_t first, int64_t end, int64_t part) {
    const NormBack *n = job;
    int64_t C = n->width, whole = C - C % LANES;
    float *restrict gains = n->sums + part * 3 * C, *restrict shifts = gains + C;
    float *restrict before = gains + 2 * C;
    const float *restrict gain = n->gain;
    for (int64_t row = first; row < end; row++) {
        const float *restrict x = n->x + row * C, *restrict slope = n->slope + row * C;
        float *restrict out = n->out + row * C;
        float mean = n->stats[2 * row], scale = n->stats[2 * row + 1];
        float one[LANES] = {0}, two[LANES] = {0}, a = 0.0f, b = 0.0f;
        for (int64_t i = 0; i < whole; i += LANES)
            for (int l = 0; l < LANES; l++) {
                float y = (x[i + l] - mean) * scale, d = slope[i + l] * gain[i + l];
                one[l] += d;
                two[l] += d * y;
            }
        for (int64_t i = whole; i < C; i++) {
            float y = (x[i] - mean) * scale, d = slope[i] * gain[i];
            a += d;
            b += d * y;
        }
        a = (a + add_lanes(one)) / (float)C;
        b = (b + add_lanes(two)) / (float)C;
        for (int64_t i = 0; i < C; i++) {
            float y = (x[i] - mean) * scale;
            gains[i] += slope[i] * y;
            shifts[i] += slope[i];
            out[i] = scale * (slope[i] * gain[i] - a - y * b);
        }
        if (n->stream) {
            const float *restrict stream = n->stream + row * C;
            for (int64_t i = 0; i < C; i++) out[i] += stream[i];
        }
        for (int64_t i = 0; i < C; i++) before[i] += out[i];
    }
}

/* ---- GELU, after a bias is added ---- */

typedef struct {
    const float *bias;
    float *x, *out; /* x: without the bias, then with it */
    int64_t width;
} Gelu;

CLONES
static void gelu_rows(const void *job, int64_t first, int64_t end, int64_t part) {
    const Gelu *g = job;
    int64_t C = g->width;
    const float *restrict bias = g->bias;
    (void)part;
    for (int64_t row = first; row < end; row++) {
        float *restrict x = g->x + row * C, *restrict out = g->out + row * C;
        for (int64_t i = 0; i < C; i++) {
            float value = x[i] + bias[i];
            x[i] = value;
            out[i] = value * gate(value);
        }
    }
}

typedef struct {
    const float *x;
    float *slope, *out, *sums; /* slope: of the output, then of the input; out: the output again */
    int64_t width;
} GeluBack;

CLONES
static void gelu_back_rows(const void *job, int64_t first, int64_t end, int64_t part) {
    const GeluBack *g = job;
    int64_t C = g->width;
    float *restrict sums = g->sums + part * C;
    for (int64_t row = first; row < end; row++) {
        const float *restrict x = g->x + row * C;
        float *restrict slope = g->slope + row * C, *restrict out = g->out + row * C;
        for (int64_t i = 0; i < C; i++) {
            float gated = gate(x[i]), own = slope[i] * gelu_slope(x[i], gated);
            out[i] = x[i] * gated;
            slope[i] = own;
            sums[i] += own;
        }
    }
}

/* ---- rows of a table ---- */

typedef struct {
    float *table;
    const float *rows;
    const int64_t *ids;
    int64_t count, width;
} Table;

/* Parts are of columns: rows may meet in one place, and are added in their order. */
static void table_columns(const void *job, int64_t first, int64_t end, int64_t part) {
    const Table *t = job;
    (void)part;
    for (int64_t row = 0; row < t->count; row++) {
        float *restrict to = t->table + t->ids[row] * t->width;
        const float *restrict from = t->rows + row * t->width;
        for (int64_t i = first; i < end; i++) to[i] += from[i];
    }
}

/* ---- Python ---- */

static void *at(unsigned long long address) { return (void *)(uintptr_t)address; }

/* The sums of each part are added to those of the first. */
static void add_parts(float *sums, int64_t parts, int64_t width) {
    for (int64_t part = 1; part < parts; part++)
        for (int64_t i = 0; i < width; i++) sums[i] += sums[part * width + i];
}

static int wrong(long long rows, long long width, long long parts) {
    if (rows >= 0 && width >= 1 && parts >= 1 && parts <= MOST_PARTS) return 0;
    PyErr_Format(PyExc_ValueError, "rows %lld, width %lld, parts %lld", rows, width, parts);
    return 1;
}

static int wrong_ids(const int64_t *ids, int64_t count, int64_t size) {
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= size) {
            PyErr_Format(PyExc_IndexError, "id %lld is not below %lld", (long long)ids[i],
                         (long long)size);
            return 1;
        }
    return 0;
}

typedef unsigned long long Address;

PyDoc_STRVAR(cross_entropy_doc,
"cross_entropy(logits, targets, losses, rows, width, scale, slopes, parts)\n\n"
"Logits become the slopes of scale * loss, where `slopes`; otherwise they are spoilt.");

static PyObject *cross_entropy(PyObject *module, PyObject *args) {
    Address logits, targets, losses;
    long long rows, width, parts;
    float scale;
    int slopes;
    if (!PyArg_ParseTuple(args, "KKKLLfpL", &logits, &targets, &losses, &rows, &width, &scale,
                          &slopes, &parts) ||
        wrong(rows, width, parts) || wrong_ids(at(targets), rows, width))
        return NULL;
    Entropy job = {at(logits), at(losses), at(targets), width, scale, slopes};
    Py_BEGIN_ALLOW_THREADS in_parts(entropy_rows, &job, rows, parts);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

PyDoc_STRVAR(norm_doc,
"norm(x, branch, bias, gain, shift, sum, out, stats, rows, width, epsilon, parts)\n\n"
"sum = x + branch + bias, where branch is not 0; out = layer_norm(sum).");

static PyObject *norm(PyObject *module, PyObject *args) {
    Address x, branch, bias, gain, shift, sum, out, stats;
    long long rows, width, parts;
    float epsilon;
    if (!PyArg_ParseTuple(args, "KKKKKKKKLLfL", &x, &branch, &bias, &gain, &shift, &sum, &out,
                          &stats, &rows, &width, &epsilon, &parts) ||
        wrong(rows, width, parts))
        return NULL;
    Norm job = {at(x),   at(branch), at(bias),  at(gain), at(shift),
                at(sum), at(out),    at(stats), width,    epsilon};
    Py_BEGIN_ALLOW_THREADS in_parts(norm_rows, &job, rows, parts);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

PyDoc_STRVAR(norm_back_doc,
"norm_back(x, stats, gain, slope, stream, out, sums, rows, width, parts)\n\n"
"out = stream + the slope of x; sums[:3]: slopes of gain, shift and bias. sums: (parts, 3, width).");

static PyObject *norm_back(PyObject *module, PyObject *args) {
    Address x, stats, gain, slope, stream, out, sums;
    long long rows, width, parts;
    if (!PyArg_ParseTuple(args, "KKKKKKKLLL", &x, &stats, &gain, &slope, &stream, &out, &sums,
                          &rows, &width, &parts) ||
        wrong(rows, width, parts))
        return NULL;
    NormBack job = {at(x),      at(stats), at(gain), at(slope),
                    at(stream), at(out),   at(sums), width};
    Py_BEGIN_ALLOW_THREADS in_parts(norm_back_rows, &job, rows, parts);
    add_parts(at(sums), parts, 3 * width);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

PyDoc_STRVAR(gelu_doc,
"gelu(x, bias, out, rows, width, parts)\n\nx += bias; out = GELU(x), in its tanh form.");

static PyObject *gelu(PyObject *module, PyObject *args) {
    Address x, bias, out;
    long long rows, width, parts;
    if (!PyArg_ParseTuple(args, "KKKLLL", &x, &bias, &out, &rows, &width, &parts) ||
        wrong(rows, width, parts))
        return NULL;
    Gelu job = {at(bias), at(x), at(out), width};
    Py_BEGIN_ALLOW_THREADS in_parts(gelu_rows, &job, rows, parts);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

PyDoc_STRVAR(gelu_back_doc,
"gelu_back(x, slope, out, sums, rows, width, parts)\n\n"
"The slope of GELU(x) becomes that of x; out = GELU(x); sums[0]: the slope of the bias.");

static PyObject *gelu_back(PyObject *module, PyObject *args) {
    Address x, slope, out, sums;
    long long rows, width, parts;
    if (!PyArg_ParseTuple(args, "KKKKLLL", &x, &slope, &out, &sums, &rows, &width, &parts) ||
        wrong(rows, width, parts))
        return NULL;
    GeluBack job = {at(x), at(slope), at(out), at(sums), width};
    Py_BEGIN_ALLOW_THREADS in_parts(gelu_back_rows, &job, rows, parts);
    add_parts(at(sums), parts, width);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

PyDoc_STRVAR(add_rows_doc,
"add_rows(table, ids, rows, count, size, width, parts)\n\ntable[ids[i]] += rows[i], in this order.");

static PyObject *add_rows(PyObject *module, PyObject *args) {
    Address table, ids, rows;
    long long count, size, width, parts;
    if (!PyArg_ParseTuple(args, "KKKLLLL", &table, &ids, &rows, &count, &size, &width, &parts) ||
        wrong(count, width, parts) || wrong_ids(at(ids), count, size))
        return NULL;
    Table job = {at(table), at(rows), at(ids), count, width};
    Py_BEGIN_ALLOW_THREADS in_parts(table_columns, &job, width, parts);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"cross_entropy", cross_entropy, METH_VARARGS, cross_entropy_doc},
    {"norm", norm, METH_VARARGS, norm_doc},
    {"norm_back", norm_back, METH_VARARGS, norm_back_doc},
    {"gelu", gelu, METH_VARARGS, gelu_doc},
    {"gelu_back", gelu_back, METH_VARARGS, gelu_back_doc},
    {"add_rows", add_rows, METH_VARARGS, add_rows_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_step", "Elementwise parts of a training step.", -1, methods,
};

PyMODINIT_FUNC PyInit__step(void) {
    find_pool();
    return PyModule_Create(&module);
}
