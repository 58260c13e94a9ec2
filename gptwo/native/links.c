/* Screening Reddit submissions: the inner loop of gptwo/web/screen.py. Its plain twin is
   gptwo/web/rules.py, which the tests hold equal.

   A line is one JSON object. It is read once, from left to right, and all of it is checked, but only
   the few fields that the rules need are kept. Whatever is not plain (an escape that leaves ASCII, a
   field of another type, a field named twice, an address of an odd form, an error) is not decided
   here: the line goes to the plain twin as it is. So a shortcut can be slow, but never wrong. The
   loop runs without the GIL, and several blocks are screened at once by threads. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* The order of REASONS in gptwo/web/rules.py. */
enum {
    KEPT, UNREADABLE, SELF, OVER_18, LOW_SCORE, URL_LENGTH, URL_MALFORMED, DATE, SUBREDDIT, WIKIPEDIA,
    DOMAIN, NOT_TEXT,
    DOUBT = 255
};
enum { DEEPEST = 64, MOST_FIELDS = 64, MAX_NUMBER = 18, MIN_URL = 9, MAX_URL = 2000 };
enum { MAX_SUBREDDIT = 64 };
#define ABSENT INT32_MIN /* of a score or a day */
#define SECONDS_END 253402300800LL /* the year 10000 */

typedef struct {
    const char *at;
    Py_ssize_t size;
} Span;

typedef struct {
    Span *words; /* sorted */
    Py_ssize_t count;
    char *text;
} Words;

typedef struct {
    PyObject_HEAD
    int32_t min_score, first_day, last_day;
    Words subreddits, wikipedia, domains, endings;
} Screen;

typedef struct {
    char *at;
    Py_ssize_t size, room;
} Bytes;

/* The columns of a block: a row a submission. */
typedef struct {
    Bytes codes, scores, days, urls, url_ends, keys, key_ends;
} Columns;

typedef struct {
    Span url, subreddit; /* as in the JSON; NULL where absent or null */
    int64_t seconds;     /* -1 where absent or null */
    int32_t score;
    int is_self, over_18;
} Fields;

/* ---- bytes and words ---- */

static int room_for(Bytes *bytes, Py_ssize_t more) {
    if (bytes->size + more <= bytes->room) return 1;
    Py_ssize_t room = (bytes->size + more) * 2 + 1024;
    char *grown = realloc(bytes->at, (size_t)room);
    if (!grown) return 0;
    bytes->at = grown;
    bytes->room = room;
    return 1;
}

static int put(Bytes *bytes, const void *from, Py_ssize_t size) {
    if (!room_for(bytes, size)) return 0;
    if (size) memcpy(bytes->at + bytes->size, from, (size_t)size);
    bytes->size += size;
    return 1;
}

static int compare(Span a, Span b) {
    Py_ssize_t shorter = a.size < b.size ? a.size : b.size;
    int order = shorter ? memcmp(a.at, b.at, (size_t)shorter) : 0;
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

static int compare_words(const void *a, const void *b) { return compare(*(Span *)a, *(Span *)b); }

static int is_among(Words *words, Span word) {
    return words->count && bsearch(&word, words->words, (size_t)words->count, sizeof word, compare_words);
}

/* The words of a text, one a line. */
static int fill_words(Words *words, const char *text, Py_ssize_t size) {
    Py_ssize_t most = 1;
    for (Py_ssize_t i = 0; i < size; i++) most += text[i] == '\n';
    words->text = malloc((size_t)size + 1);
    words->words = malloc((size_t)most * sizeof(Span));
    if (!words->text || !words->words) return 0;
    memcpy(words->text, text, (size_t)size);
    const char *at = words->text, *end = at + size;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        if (stop > at) words->words[words->count++] = (Span){at, stop - at};
        at = stop + 1;
    }
    qsort(words->words, (size_t)words->count, sizeof(Span), compare_words);
    return 1;
}

static void free_words(Words *words) {
    free(words->words);
    free(words->text);
}

/* ---- JSON ---- */

static inline const char *skip_space(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t')) at++;
    return at;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The next byte that a string may not simply hold: a quote, a backslash or a control character.
   Sixteen bytes are looked at together where the machine can. */
static inline const char *plain_end(const char *at, const char *end) {
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), last = _mm_set1_epi8(0x1f);
    for (; end - at >= 16; at += 16) {
        __m128i text = _mm_loadu_si128((const __m128i *)at);
        __m128i stops = _mm_or_si128(_mm_cmpeq_epi8(text, quote), _mm_cmpeq_epi8(text, slash));
        stops = _mm_or_si128(stops, _mm_cmpeq_epi8(_mm_min_epu8(text, last), text)); /* <= 0x1f */
        int found = _mm_movemask_epi8(stops);
        if (found) return at + __builtin_ctz((unsigned)found);
    }
#endif
    while (at < end && *at != '"' && *at != '\\' && (unsigned char)*at >= 0x20) at++;
    return at;
}

/* Past the string whose opening quote lies before `at`; NULL where it is not plain JSON. */
static inline const char *skip_string(const char *at, const char *end) {
    for (;;) {
        at = plain_end(at, end);
        if (at == end) return NULL;
        if (*at == '"') return at + 1;
        if (*at != '\\' || end - at < 2) return NULL;
        if (at[1] == 'u') {
            if (end - at < 6) return NULL;
            for (int i = 2; i < 6; i++)
                if (hex_value(at[i]) < 0) return NULL;
            at += 6;
        } else {
            if (!at[1] || !strchr("\"\\/bfnrt", at[1])) return NULL;
            at += 2;
        }
    }
}

static inline int is_digit(char c) { return c >= '0' && c <= '9'; }

/* Past a number; NULL where it is none, or longer than any that Python reads without asking. */
static const char *skip_number(const char *at, const char *end) {
    const char *begin = at;
    if (at < end && *at == '-') at++;
    if (at == end || !is_digit(*at)) return NULL;
    if (*at == '0') at++;
    else while (at < end && is_digit(*at)) at++;
    if (at < end && *at == '.') {
        if (++at == end || !is_digit(*at)) return NULL;
        while (at < end && is_digit(*at)) at++;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-')) at++;
        if (at == end || !is_digit(*at)) return NULL;
        while (at < end && is_digit(*at)) at++;
    }
    return at - begin > 4000 ? NULL : at;
}

static inline const char *skip_literal(const char *at, const char *end) {
    if (end - at >= 4 && (!memcmp(at, "null", 4) || !memcmp(at, "true", 4))) return at + 4;
    if (end - at >= 5 && !memcmp(at, "false", 5)) return at + 5;
    return NULL;
}

static inline const char *skip_scalar(const char *at, const char *end) {
    if (at == end) return NULL;
    if (*at == '"') return skip_string(at + 1, end);
    if (*at == 'n' || *at == 't' || *at == 'f') return skip_literal(at, end);
    return skip_number(at, end);
}

/* Past an object or array that opens at `at`; NULL where it is not plain JSON. */
static const char *skip_nested(const char *at, const char *end) {
    char open[DEEPEST];
    int depth = 0;
    for (;;) { /* at a value */
        if (at == end) return NULL;
        if (*at == '{' || *at == '[') {
            if (depth == DEEPEST) return NULL;
            open[depth++] = *at;
            at = skip_space(at + 1, end);
            if (at == end) return NULL;
            if (*at == (open[depth - 1] == '{' ? '}' : ']')) goto closing;
            if (open[depth - 1] == '{') goto name;
            continue;
        }
        if (!(at = skip_scalar(at, end))) return NULL;
    after: /* a value */
        at = skip_space(at, end);
        if (at == end) return NULL;
        if (*at == ',') {
            at = skip_space(at + 1, end);
            if (open[depth - 1] == '{') goto name;
            continue;
        }
        if (*at != (open[depth - 1] == '{' ? '}' : ']')) return NULL;
    closing:
        at++;
        if (--depth == 0) return at;
        goto after;
    name:
        if (at == end || *at != '"' || !(at = skip_string(at + 1, end))) return NULL;
        at = skip_space(at, end);
        if (at == end || *at != ':') return NULL;
        at = skip_space(at + 1, end);
    }
}

/* ---- the fields of a submission; each reader returns 0 where it is in doubt ---- */

static int is_null(Span value) { return value.size == 4 && *value.at == 'n'; }

static int read_flag(Span value, int *flag) {
    char first = *value.at;
    if (first != 't' && first != 'f' && first != 'n') return 0;
    *flag = first == 't';
    return 1;
}

static int read_text(Span value, Span *text) {
    if (is_null(value)) return 1;
    if (*value.at != '"') return 0;
    *text = (Span){value.at + 1, value.size - 2};
    return 1;
}

/* Digits alone, as many as cannot overflow. */
static int read_digits(Span value, int64_t *number) {
    if (!value.size || value.size > MAX_NUMBER) return 0;
    *number = 0;
    for (Py_ssize_t i = 0; i < value.size; i++) {
        if (!is_digit(value.at[i])) return 0;
        *number = *number * 10 + (value.at[i] - '0');
    }
    return 1;
}

static int read_score(Span value, int32_t *score) {
    int64_t number;
    if (is_null(value)) return 1;
    int negative = *value.at == '-';
    if (!read_digits((Span){value.at + negative, value.size - negative}, &number)) return 0;
    if (number > INT32_MAX) return 0;
    *score = (int32_t)(negative ? -number : number);
    return 1;
}

/* 1118895720, "1118895720" and 1118895720.0 */
static int read_seconds(Span value, int64_t *seconds) {
    if (is_null(value)) return 1;
    if (*value.at == '"') value = (Span){value.at + 1, value.size - 2};
    while (value.size > 2 && value.at[value.size - 1] == '0' && value.at[value.size - 2] == '0' &&
           memchr(value.at, '.', (size_t)value.size - 2))
        value.size--;
    if (value.size > 2 && value.at[value.size - 2] == '.' && value.at[value.size - 1] == '0')
        value.size -= 2;
    return read_digits(value, seconds) && *seconds < SECONDS_END;
}

#define NAMED(text) (name.size == sizeof text - 1 && !memcmp(name.at, text, sizeof text - 1))

static int read_field(Span name, Span value, Fields *fields, unsigned *seen) {
    unsigned bit;
    int fine;
    switch (*name.at) { /* most names end here */
    case 'u': case 's': case 'c': case 'd': case 'i': case 'o': break;
    default: return 1;
    }
    if (NAMED("url")) bit = 1, fine = read_text(value, &fields->url);
    else if (NAMED("score")) bit = 2, fine = read_score(value, &fields->score);
    else if (NAMED("created_utc")) bit = 4, fine = read_seconds(value, &fields->seconds);
    else if (NAMED("subreddit")) bit = 8, fine = read_text(value, &fields->subreddit);
    else if (NAMED("is_self")) bit = 16, fine = read_flag(value, &fields->is_self);
    else if (NAMED("over_18")) bit = 32, fine = read_flag(value, &fields->over_18);
    else if (NAMED("date")) return 0;
    else return 1;
    if (*seen & bit) return 0; /* named twice */
    *seen |= bit;
    return fine;
}

/* A whole line; 0 where it is in doubt. */
static int read_object(const char *at, const char *end, Fields *fields) {
    unsigned seen = 0;
    at = skip_space(at, end);
    if (at == end || *at != '{') return 0;
    for (at = skip_space(at + 1, end);; at = skip_space(at + 1, end)) {
        if (at == end || *at != '"') return 0;
        const char *begin = at + 1;
        if (!(at = skip_string(begin, end))) return 0;
        Span name = {begin, at - 1 - begin};
        if (name.size && memchr(name.at, '\\', (size_t)name.size)) return 0;
        at = skip_space(at, end);
        if (at == end || *at != ':') return 0;
        begin = at = skip_space(at + 1, end);
        if (at == end) return 0;
        at = *at == '{' || *at == '[' ? skip_nested(at, end) : skip_scalar(at, end);
        if (!at || (name.size && !read_field(name, (Span){begin, at - begin}, fields, &seen))) return 0;
        at = skip_space(at, end);
        if (at == end) return 0;
        if (*at == '}') break;
        if (*at != ',') return 0;
    }
    return skip_space(at + 1, end) == end && fields->url.at;
}

/* ---- addresses ---- */

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

static int is_word(char c) {
    return is_digit(c) || (lower(c) >= 'a' && lower(c) <= 'z') || c == '_' || c == '-' || c == '.';
}

/* The text of a JSON string that is ASCII without white space, `&amp;` put right; size -1 else. */
static Py_ssize_t read_url(Span url, char *into) {
    Py_ssize_t size = 0;
    for (Py_ssize_t i = 0; i < url.size; i++) {
        int c = (unsigned char)url.at[i];
        if (c == '\\') {
            c = (unsigned char)url.at[++i];
            if (c == 'u') {
                if (url.at[i + 1] != '0' || url.at[i + 2] != '0') return -1;
                c = hex_value(url.at[i + 3]) * 16 + hex_value(url.at[i + 4]);
                i += 4;
            } else if (c != '/' && c != '"' && c != '\\') return -1;
        }
        if (c <= 0x20 || c >= 0x7f) return -1;
        into[size++] = (char)c;
        /* All text before has been put right, so an & that a replacement made is not seen twice. */
        if (c == ';' && size >= 5 && !memcmp(into + size - 5, "&amp;", 5)) {
            size -= 4;
            into[size - 1] = '\1';
        }
    }
    for (Py_ssize_t i = 0; i < size; i++)
        if (into[i] == '\1') into[i] = '&';
    return size;
}

/* Whether bytes are UTF-8 as Python reads it: no surrogates, no longer forms than needed. */
static int is_utf8(const char *text, Py_ssize_t size) {
    const unsigned char *at = (const unsigned char *)text, *end = at + size;
    while (at < end) {
        int more = *at < 0x80 ? 0 : *at >= 0xc2 && *at < 0xe0 ? 1 : (*at & 0xf0) == 0xe0 ? 2
                   : *at >= 0xf0 && *at < 0xf5 ? 3 : -1;
        if (more < 0 || end - at <= more) return 0;
        unsigned low = 0x80, high = 0xbf; /* of the second byte */
        if (*at == 0xe0) low = 0xa0;
        if (*at == 0xed) high = 0x9f;
        if (*at == 0xf0) low = 0x90;
        if (*at == 0xf4) high = 0x8f;
        for (int i = 1; i <= more; i++, low = 0x80, high = 0xbf)
            if (at[i] < low || at[i] > high) return 0;
        at += more + 1;
    }
    return 1;
}

/* Undo %XX; size -1 where the bytes are not UTF-8. */
static Py_ssize_t unquote(Span text, int plus, char *into) {
    Py_ssize_t size = 0;
    int ascii = 1;
    for (Py_ssize_t i = 0; i < text.size; i++) {
        int c = (unsigned char)text.at[i];
        if (c == '+' && plus) c = ' ';
        if (c == '%' && i + 2 < text.size) {
            int high = hex_value(text.at[i + 1]), low = hex_value(text.at[i + 2]);
            if (high >= 0 && low >= 0) {
                c = high * 16 + low;
                i += 2;
            }
        }
        if (c >= 0x80) ascii = 0;
        into[size++] = (char)c;
    }
    return ascii || is_utf8(into, size) ? size : -1;
}

typedef struct {
    Span name, value;
} Field;

static int compare_fields(const void *a, const void *b) {
    int order = compare(((Field *)a)->name, ((Field *)b)->name);
    return order ? order : compare(((Field *)a)->value, ((Field *)b)->value);
}

static int is_tracking(Span name) {
    static const char *const names[] = {"utm_", "fbclid", "gclid", "mc_cid", "mc_eid", "igshid", "ref_src"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        Py_ssize_t size = (Py_ssize_t)strlen(names[i]), same = 0;
        while (same < size && same < name.size && lower(name.at[same]) == names[i][same]) same++;
        if (same == size) return 1;
    }
    return 0;
}

/* Text as it stands in a query: three bytes for one at the most. */
static void put_quoted(Bytes *key, Span text) {
    static const char digits[] = "0123456789ABCDEF";
    for (Py_ssize_t i = 0; i < text.size; i++) {
        char c = text.at[i];
        if (is_word(c) || c == '~') key->at[key->size++] = c;
        else if (c == ' ') key->at[key->size++] = '+';
        else {
            key->at[key->size++] = '%';
            key->at[key->size++] = digits[(c >> 4) & 15];
            key->at[key->size++] = digits[c & 15];
        }
    }
}

/* Add the sorted query without tracking fields; the key has room for it. 0 in doubt. */
static int put_query(Bytes *key, Span query) {
    Field fields[MOST_FIELDS];
    char text[MAX_URL];
    char *free_at = text;
    Py_ssize_t count = 0, size;
    const char *at = query.at, *end = at + query.size;
    while (at < end) {
        const char *stop = memchr(at, '&', (size_t)(end - at));
        if (!stop) stop = end;
        if (stop > at) {
            const char *equals = memchr(at, '=', (size_t)(stop - at)), *name_end = equals ? equals : stop;
            Field field = {{free_at, 0}, {free_at, 0}};
            if ((size = unquote((Span){at, name_end - at}, 1, free_at)) < 0) return 0;
            field.name = (Span){free_at, size};
            free_at += size;
            if (equals) {
                if ((size = unquote((Span){equals + 1, stop - equals - 1}, 1, free_at)) < 0) return 0;
                field.value = (Span){free_at, size};
                free_at += size;
            }
            for (Py_ssize_t i = 0; i < field.name.size; i++)
                if ((unsigned char)field.name.at[i] >= 0x80) return 0; /* its lower case is Python's */
            if (!is_tracking(field.name)) {
                if (count == MOST_FIELDS) return 0;
                fields[count++] = field;
            }
        }
        at = stop + 1;
    }
    qsort(fields, (size_t)count, sizeof(Field), compare_fields);
    for (Py_ssize_t i = 0; i < count; i++) {
        key->at[key->size++] = i ? '&' : '?';
        put_quoted(key, fields[i].name);
        key->at[key->size++] = '=';
        put_quoted(key, fields[i].value);
    }
    return 1;
}

typedef struct {
    char host[MAX_URL]; /* in lower case, without dots at its end */
    Py_ssize_t host_size;
    Span path;
} Address;

/* Add the canonical key of `url` (at most MAX_URL long) to `keys` and tell its host and path: what
   canonical_key() in gptwo/urls.py does. 0 in doubt. */
static int put_key(Bytes *keys, Span url, Address *address) {
    const char *at = url.at, *end = at + url.size;
    Py_ssize_t start = keys->size, size = 0;
    const char *scheme = "http";
    for (; *scheme; scheme++, at++)
        if (lower(*at) != *scheme) return 0;
    if (lower(*at) == 's') at++;
    if (end - at < 3 || memcmp(at, "://", 3)) return 0;
    for (at += 3; at < end && is_word(*at); at++) address->host[size++] = lower(*at);
    while (size && address->host[size - 1] == '.') size--;
    address->host_size = size;
    int64_t port = 80;
    if (at < end && *at == ':') {
        const char *begin = ++at;
        while (at < end && is_digit(*at)) at++;
        if (at > begin && (!read_digits((Span){begin, at - begin}, &port) || port > 65535)) return 0;
    }
    if (!size || (at < end && *at != '/' && *at != '?' && *at != '#')) return 0;
    const char *hash = memchr(at, '#', (size_t)(end - at));
    if (hash) end = hash;
    const char *mark = memchr(at, '?', (size_t)(end - at));
    address->path = (Span){at, (mark ? mark : end) - at};

    if (!room_for(keys, 3 * url.size + 2 * MOST_FIELDS + 16)) return 0;
    int www = size >= 4 && !memcmp(address->host, "www.", 4) ? 4 : 0;
    if (size == www) return 0;
    put(keys, address->host + www, size - www);
    if (port != 80 && port != 443)
        keys->size += snprintf(keys->at + keys->size, 8, ":%d", (int)port);
    Py_ssize_t path = unquote(address->path, 0, keys->at + keys->size);
    if (path >= 0) {
        while (path && keys->at[keys->size + path - 1] == '/') path--;
        keys->size += path;
        if (!mark || put_query(keys, (Span){mark + 1, end - mark - 1})) return 1;
    }
    keys->size = start;
    return 0;
}

static int lies_on(Words *domains, Address *address) {
    Span host = {address->host, address->host_size};
    for (;;) {
        if (is_among(domains, host)) return 1;
        const char *dot = memchr(host.at, '.', (size_t)host.size);
        if (!dot) return 0;
        host = (Span){dot + 1, host.size - (dot + 1 - host.at)};
    }
}

/* Whether the path ends with one of the endings. */
static int ends_like(Words *endings, Span path) {
    char ending[8];
    for (Py_ssize_t size = 1; size <= 8 && size <= path.size; size++) {
        char c = lower(path.at[path.size - size]);
        ending[8 - size] = c;
        if (c == '.') return is_among(endings, (Span){ending + 8 - size, size});
    }
    return 0;
}

/* ---- the rules ---- */

static int is_blocked_subreddit(Screen *screen, Span name) {
    char text[MAX_SUBREDDIT];
    for (Py_ssize_t i = 0; i < name.size; i++) text[i] = lower(name.at[i]);
    return is_among(&screen->subreddits, (Span){text, name.size});
}

/* The first rule a submission breaks, or KEPT: why_not() of the plain twin. */
static int judge(Screen *screen, Fields *fields, Span url, int32_t day, Bytes *keys) {
    Address address;
    if (fields->is_self) return SELF;
    if (fields->over_18) return OVER_18;
    if (fields->score != ABSENT && fields->score < screen->min_score) return LOW_SCORE;
    if (url.size < MIN_URL || url.size > MAX_URL) return URL_LENGTH;
    if (!put_key(keys, url, &address)) return DOUBT;
    if (day != ABSENT && (day < screen->first_day || day > screen->last_day)) return DATE;
    if (is_blocked_subreddit(screen, fields->subreddit)) return SUBREDDIT;
    if (lies_on(&screen->wikipedia, &address)) return WIKIPEDIA;
    if (lies_on(&screen->domains, &address)) return DOMAIN;
    return ends_like(&screen->endings, address.path) ? NOT_TEXT : KEPT;
}

static int put_numbers(Columns *columns, int code, int32_t score, int32_t day) {
    char one = (char)code;
    int32_t url_end = (int32_t)columns->urls.size, key_end = (int32_t)columns->keys.size;
    return put(&columns->codes, &one, 1) && put(&columns->scores, &score, 4) &&
           put(&columns->days, &day, 4) && put(&columns->url_ends, &url_end, 4) &&
           put(&columns->key_ends, &key_end, 4);
}

/* A line without its end: 1, 0 where memory is short, or DOUBT. */
static int screen_line(Screen *screen, Span line, Columns *columns) {
    Fields fields = {.score = ABSENT, .seconds = -1};
    if (!read_object(line.at, line.at + line.size, &fields)) return DOUBT;
    if (fields.subreddit.size > MAX_SUBREDDIT) return DOUBT;
    for (Py_ssize_t i = 0; i < fields.subreddit.size; i++)
        if (fields.subreddit.at[i] == '\\' || (unsigned char)fields.subreddit.at[i] >= 0x80) return DOUBT;
    if (!room_for(&columns->urls, fields.url.size)) return 0;
    Span url = {columns->urls.at + columns->urls.size, 0};
    url.size = read_url(fields.url, columns->urls.at + columns->urls.size);
    if (url.size < 0) return DOUBT;
    int32_t day = fields.seconds < 0 ? ABSENT : (int32_t)(fields.seconds / 86400);
    int code = judge(screen, &fields, url, day, &columns->keys);
    if (code == DOUBT) return DOUBT;
    columns->urls.size += url.size;
    return put_numbers(columns, code, fields.score, day);
}

/* What the plain twin makes of a line: a list of (code, url, key, score, day). */
static int take_plain(PyObject *plain, Span line, Py_ssize_t at, Columns *columns) {
    PyObject *rows = PyObject_CallFunction(plain, "y#n", line.at, line.size, at);
    if (!rows) return 0;
    Py_ssize_t count = PyList_Check(rows) ? PyList_GET_SIZE(rows) : -1;
    if (count < 0) PyErr_SetString(PyExc_TypeError, "rows must be a list");
    int fine = count >= 0;
    for (Py_ssize_t i = 0; fine && i < count; i++) {
        const char *url, *key;
        Py_ssize_t url_size, key_size;
        int code, score, day;
        fine = PyArg_ParseTuple(PyList_GET_ITEM(rows, i), "is#s#ii", &code, &url, &url_size, &key,
                                &key_size, &score, &day);
        if (fine && !(put(&columns->urls, url, url_size) && put(&columns->keys, key, key_size) &&
                      put_numbers(columns, code, score, day)))
            fine = (PyErr_NoMemory(), 0);
    }
    Py_DECREF(rows);
    return fine;
}

static void free_columns(Columns *columns) {
    free(columns->codes.at);
    free(columns->scores.at);
    free(columns->days.at);
    free(columns->urls.at);
    free(columns->url_ends.at);
    free(columns->keys.at);
    free(columns->key_ends.at);
}

PyDoc_STRVAR(screen_doc,
"screen(block, plain) -> (codes, scores, days, url_ends, urls, key_ends, keys)\n--\n\n"
"Judge every line of `block`: uint8, int32, int32, int32 and UTF-8 columns as bytes. plain(line, at)\n"
"gets each line in doubt and its place, and returns its rows as a list of (code, url, key, score,\n"
"day). The ends have one entry more than there are rows.");

static PyObject *screen_block(Screen *self, PyObject *args) {
    Py_buffer block;
    PyObject *plain, *made = NULL;
    Columns columns = {{0}};
    int32_t zero = 0;
    if (!PyArg_ParseTuple(args, "y*O:screen", &block, &plain)) return NULL;
    if (block.len > INT32_MAX / 4) { /* the ends of keys are 32-bit */
        PyErr_Format(PyExc_ValueError, "a block of %zd bytes, expected less than 2^29", block.len);
        PyBuffer_Release(&block);
        return NULL;
    }
    int fine = put(&columns.url_ends, &zero, 4) && put(&columns.key_ends, &zero, 4) &&
               room_for(&columns.codes, 1) && room_for(&columns.scores, 1) && /* none stays NULL */
               room_for(&columns.days, 1) && room_for(&columns.urls, 1) && room_for(&columns.keys, 1);
    if (!fine) PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    const char *at = block.buf, *end = at + block.len;
    while (fine && at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at)), *next = stop ? stop + 1 : end;
        if (!stop) stop = end;
        if (stop > at && stop[-1] == '\r') stop--;
        if (stop > at) {
            Span line = {at, stop - at};
            int done = screen_line(self, line, &columns);
            if (done != 1) {
                Py_BLOCK_THREADS
                if (done == DOUBT) fine = take_plain(plain, line, at - (char *)block.buf, &columns);
                else fine = (PyErr_NoMemory(), 0);
                Py_UNBLOCK_THREADS
            }
        }
        at = next;
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&block);
    if (fine)
        made = Py_BuildValue("y#y#y#y#y#y#y#", columns.codes.at, columns.codes.size, columns.scores.at,
                             columns.scores.size, columns.days.at, columns.days.size,
                             columns.url_ends.at, columns.url_ends.size, columns.urls.at,
                             columns.urls.size, columns.key_ends.at, columns.key_ends.size,
                             columns.keys.at, columns.keys.size);
    free_columns(&columns);
    return made;
}

static PyObject *screen_new(PyTypeObject *type, PyObject *args, PyObject *names) {
    int min_score, first_day, last_day;
    const char *texts[4];
    Py_ssize_t sizes[4];
    if (names && PyDict_GET_SIZE(names)) {
        PyErr_SetString(PyExc_TypeError, "Screen takes no names");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "iiis#s#s#s#:Screen", &min_score, &first_day, &last_day, &texts[0],
                          &sizes[0], &texts[1], &sizes[1], &texts[2], &sizes[2], &texts[3], &sizes[3]))
        return NULL;
    Screen *self = (Screen *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->min_score = min_score;
    self->first_day = first_day;
    self->last_day = last_day;
    Words *words[4] = {&self->subreddits, &self->wikipedia, &self->domains, &self->endings};
    for (int i = 0; i < 4; i++)
        if (!fill_words(words[i], texts[i], sizes[i])) {
            Py_DECREF(self);
            return PyErr_NoMemory();
        }
    return (PyObject *)self;
}

static void screen_free(Screen *self) {
    free_words(&self->subreddits);
    free_words(&self->wikipedia);
    free_words(&self->domains);
    free_words(&self->endings);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef methods[] = {
    {"screen", (PyCFunction)screen_block, METH_VARARGS, screen_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(type_doc,
"Screen(min_score, first_day, last_day, subreddits, wikipedia, domains, endings)\n--\n\n"
"The rules: days since 1970, and four lists of words in lower case, one a line. An ending has at most\n"
"eight characters, its dot included.");

static PyTypeObject ScreenType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gptwo.native._links.Screen",
    .tp_basicsize = sizeof(Screen),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = type_doc,
    .tp_new = screen_new,
    .tp_dealloc = (destructor)screen_free,
    .tp_methods = methods,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "gptwo.native._links", "Screening Reddit submissions.", -1, NULL,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__links(void) {
    if (PyType_Ready(&ScreenType) < 0) return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made && PyModule_AddObjectRef(made, "Screen", (PyObject *)&ScreenType) < 0) Py_CLEAR(made);
    return made;
}
