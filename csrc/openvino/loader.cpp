// What OpenVINO is told to load. It looks whether the operator that lies beside it fits this processor and this OpenVINO, and
// loads it then: the operator itself could not say so, since it needs both before its first line runs.
#include <dlfcn.h>
#include <link.h>

#include <cstring>
#include <stdexcept>
#include <string>

#include "../isa.h"

namespace {

// The file name of the OpenVINO in this process.
std::string running() {
  std::string found;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        const char* slash = std::strrchr(info->dlpi_name, '/');
        const char* name = slash ? slash + 1 : info->dlpi_name;
        if (std::strncmp(name, "libopenvino.so", 14) != 0) return 0;
        *static_cast<std::string*>(out) = name;
        return 1;
      },
      &found);
  return found;
}

std::string operator_beside(const void* here) {
  Dl_info info;
  if (!dladdr(here, &info)) throw std::runtime_error("The place of this extension is not known.");
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1) + LAZY_OPERATOR;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void create_extensions(void* extensions) {
  if (lazy::find_best_isa() < LAZY_LEVEL)
    throw std::runtime_error("This model was exported for processors with " LAZY_LEVEL_NAME
                             ", which this one has not; export the model again on this machine.");
  const std::string version = running();
  if (version.size() > std::strlen("libopenvino.so") && version != LAZY_OPENVINO)
    throw std::runtime_error("This model was exported beside " LAZY_OPENVINO ", and " + version +
                             " runs here; export the model again beside that version.");
  const std::string path = operator_beside(reinterpret_cast<const void*>(&create_extensions));
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library)
    throw std::runtime_error("The operator of this model does not load (" + std::string(dlerror()) +
                             "); export the model again beside the OpenVINO that runs here.");
  const auto create = reinterpret_cast<void (*)(void*)>(dlsym(library, "create_extensions"));
  if (!create) throw std::runtime_error(path + " is no operator of lazyneuron; export the model again.");
  create(extensions);
}
