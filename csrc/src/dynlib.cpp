#include "dynlib.h"

#ifdef _WIN32
#  include <windows.h>
#else
#  include <dlfcn.h>
#endif

namespace rti {

#ifdef _WIN32

bool load_library(const std::string& path, bool, std::string& why) {
    if (LoadLibraryA(path.c_str())) return true;
    why = path + ": cannot be loaded (error " + std::to_string(GetLastError()) + ")";
    return false;
}

AnyFunction find_function(const std::string& library, const char* name) {
    const HMODULE module = GetModuleHandleA(library.empty() ? nullptr : library.c_str());
    return module ? reinterpret_cast<AnyFunction>(GetProcAddress(module, name)) : nullptr;
}

std::string own_folder() {
    HMODULE module = nullptr;
    char path[MAX_PATH] = "";
    GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
                       reinterpret_cast<LPCSTR>(&own_folder), &module);
    GetModuleFileNameA(module, path, MAX_PATH);
    const std::string full = path;
    return full.substr(0, full.find_last_of("\\/") + 1);
}

#else

bool load_library(const std::string& path, bool global, std::string& why) {
    if (dlopen(path.c_str(), RTLD_NOW | (global ? RTLD_GLOBAL : RTLD_LOCAL))) return true;
    const char* error = dlerror();
    why = error ? error : path + ": cannot be loaded";
    return false;
}

AnyFunction find_function(const std::string& library, const char* name) {
    void* handle = library.empty() ? dlopen(nullptr, RTLD_NOW) : dlopen(library.c_str(), RTLD_NOW | RTLD_NOLOAD);
    return handle ? reinterpret_cast<AnyFunction>(dlsym(handle, name)) : nullptr;
}

std::string own_folder() {
    Dl_info info;
    if (!dladdr(reinterpret_cast<void*>(&own_folder), &info) || !info.dli_fname) return "";
    const std::string full = info.dli_fname;
    return full.substr(0, full.find_last_of('/') + 1);
}

#endif

}  // namespace rti
