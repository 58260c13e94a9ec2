/* The tree of html.h as Python objects: what its plain twin, gptwo/corpus/extraction/html.py, is held to.
   The parser itself is compiled into the kernels that read pages. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "html.h"

static PyObject *text_of(const HtmlTree *tree, int32_t start, int32_t size) {
    return PyUnicode_DecodeUTF8((const char *)html_bytes(tree, start), size, "surrogatepass");
}

/* {name: value} of the attributes kept. */
static PyObject *attributes_of(const HtmlTree *tree, const HtmlNode *node) {
    PyObject *made = PyDict_New();
    for (int i = 0; made && i < node->attributes; i++) {
        const HtmlAttribute *at = tree->attributes + node->start + i;
        PyObject *value = text_of(tree, at->start, at->size);
        if (!value || PyDict_SetItemString(made, ATTRIBUTE_NAME[at->name], value)) Py_CLEAR(made);
        Py_XDECREF(value);
    }
    return made;
}

static PyObject *node_of(const HtmlTree *tree, const HtmlNode *node) {
    int is_text = node->tag == TAG_text;
    PyObject *text = is_text ? text_of(tree, node->start, node->size) : PyUnicode_New(0, 0);
    PyObject *attributes = text ? attributes_of(tree, node) : NULL;
    if (!attributes) return Py_XDECREF(text), NULL;
    return Py_BuildValue("iiiiNN", node->tag, node->parent, node->last, node->flags, text,
                         attributes);
}

/* Parse the one argument, a page; 0 with an exception when that fails. */
static int parse_page(HtmlTree *tree, Py_buffer *page, PyObject *argument) {
    if (PyObject_GetBuffer(argument, page, PyBUF_SIMPLE)) return 0;
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = html_parse(tree, page->buf, page->len);
    Py_END_ALLOW_THREADS
    if (!failed) return 1;
    if (failed == HTML_TOO_LARGE)
        PyErr_Format(PyExc_ValueError, "html: a page of %zd bytes, over %d", page->len, HTML_MOST);
    else
        PyErr_NoMemory();
    html_free(tree);
    PyBuffer_Release(page);
    return 0;
}

PyDoc_STRVAR(parse_doc,
"parse(page) -> [(tag, parent, last, flags, text, attributes), ...]\n\n"
"The nodes of a page (UTF-8) in document order.");

static PyObject *parse(PyObject *module, PyObject *argument) {
    HtmlTree tree = {0};
    Py_buffer page;
    if (!parse_page(&tree, &page, argument)) return NULL;
    PyObject *nodes = PyList_New(tree.count);
    for (int32_t i = 0; nodes && i < tree.count; i++) {
        PyObject *node = node_of(&tree, tree.nodes + i);
        if (node) PyList_SET_ITEM(nodes, i, node);
        else Py_CLEAR(nodes);
    }
    html_free(&tree);
    PyBuffer_Release(&page);
    return nodes;
}

PyDoc_STRVAR(count_doc,
"count(page) -> nodes\n\n"
"How many nodes a page (UTF-8) has: the parser alone, for measurements.");

static PyObject *count(PyObject *module, PyObject *argument) {
    HtmlTree tree = {0};
    Py_buffer page;
    if (!parse_page(&tree, &page, argument)) return NULL;
    int32_t nodes = tree.count;
    html_free(&tree);
    PyBuffer_Release(&page);
    return PyLong_FromLong(nodes);
}

PyDoc_STRVAR(tags_doc,
"tags() -> [(name, properties), ...]\n\n"
"By number, what is known of each tag.");

static PyObject *tags(PyObject *module, PyObject *ignored) {
    PyObject *made = PyList_New(TAGS);
    for (int i = 0; made && i < TAGS; i++) {
        PyObject *tag = Py_BuildValue("sI", TAG_NAME[i], HTML_PROPERTY[i]);
        if (tag) PyList_SET_ITEM(made, i, tag);
        else Py_CLEAR(made);
    }
    return made;
}

static PyMethodDef methods[] = {
    {"parse", parse, METH_O, parse_doc},
    {"count", count, METH_O, count_doc},
    {"tags", tags, METH_NOARGS, tags_doc},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_html", NULL, 0, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__html(void) {
    html_prepare();
    return PyModule_Create(&module);
}
