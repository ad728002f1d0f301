// Looks at Python's objects before a call, in one go: from Python, each look waits for its own line of memory, which
// weights have pushed out of the caches; here the processor has many under way. No header of Python is needed: the
// caller passes the functions of its stable ABI.
#pragma once
#include <cstdint>

namespace lazy {
namespace {

using Object = void;

struct PythonCalls {
  Object* (*dict_of)(Object*, void*);            // PyObject_GenericGetDict: a new reference
  Object* (*get)(Object*, Object*);              // PyDict_GetItem: a borrowed one, or null
  int64_t (*size)(Object*);                      // PyDict_Size
  Object* (*type_of)(Object*);                   // PyObject_Type: a new reference
  int (*set)(Object*, int64_t, Object*);         // PyList_SetItem: takes over a reference
  void (*keep)(Object*);                         // Py_IncRef
  void (*let_go)(Object*);                       // Py_DecRef
};

enum class Look : int64_t { attribute, entry, size, type, taken };  // numbered as in core/watch.py

struct Condition {
  Look kind;
  Object *owner, *key;
  int64_t value;  // an object's address, 0 for none; a size
  const void* near;  // memory that the look needs beside the owner's, fetched ahead; may be any address
};

constexpr int64_t kAhead = 24;  // conditions

int64_t address(const Object* p) { return static_cast<int64_t>(reinterpret_cast<intptr_t>(p)); }

bool holds(const PythonCalls& python, const Condition& c) {
  switch (c.kind) {
    case Look::attribute: {
      Object* held = python.dict_of(c.owner, nullptr);
      if (held == nullptr) return false;
      const bool same = address(python.get(held, c.key)) == c.value;
      python.let_go(held);
      return same;
    }
    case Look::size: return python.size(c.owner) == c.value;
    case Look::type: {
      Object* type = python.type_of(c.owner);
      python.let_go(type);
      return address(type) == c.value;
    }
    default: return address(python.get(c.owner, c.key)) == c.value;
  }
}

}  // namespace
}  // namespace lazy

// Whether all conditions hold; what is to be taken is put into the list, which has a place for each. Called with the
// interpreter's lock held.
extern "C" __attribute__((visibility("default"))) int64_t lazyneuron_look(const lazy::PythonCalls* python,
                                                                          const lazy::Condition* conditions, int64_t n,
                                                                          lazy::Object* taken) {
  int64_t next = 0;
  for (int64_t k = 0; k < n; ++k) {
    const lazy::Condition& c = conditions[k];
    if (k + lazy::kAhead < n) {
      __builtin_prefetch(conditions[k + lazy::kAhead].owner);
      __builtin_prefetch(conditions[k + lazy::kAhead].near);
    }
    if (!lazy::holds(*python, c)) return 0;
    if (c.kind != lazy::Look::taken) continue;
    lazy::Object* object = reinterpret_cast<lazy::Object*>(static_cast<intptr_t>(c.value));
    python->keep(object);
    if (python->set(taken, next++, object) != 0) return 0;
  }
  return 1;
}
