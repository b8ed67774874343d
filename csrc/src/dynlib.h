// Shared libraries found at run time, so that a process without a model carries no Python.
#pragma once

#include <string>

namespace rti {

using AnyFunction = void (*)();

// Load a library for good; its symbols serve later ones where `global`. False with the reason in `why`.
bool load_library(const std::string& path, bool global, std::string& why);
// A function of the process, or of a library loaded before; null where there is none.
AnyFunction find_function(const std::string& library, const char* name);
// The folder of the library or program that holds this code, with its separator.
std::string own_folder();

}  // namespace rti
