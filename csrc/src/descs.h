// What the C ABI's descriptions say, checked and in the core's own words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "session.h"

namespace rti {

// Thrown where a call cannot do what was asked; becomes its status and the text of rti_last_error.
struct Failure {
    rti_status status;
    std::string text;
};

// Throws a Failure unless `condition`.
void require(bool condition, const char* text, rti_status status = RTI_E_ARGUMENT);

// A caller's struct as this library knows it: fields that the caller's header lacks keep their defaults.
rti_model_desc read(const rti_model_desc& from);
rti_session_desc read(const rti_session_desc& from);

void check_version(std::uint32_t asked, const char* name);
void check_flags(std::uint32_t flags);
// Enough of a .safetensors file to tell it from anything else before a thread is started for it.
void check_container(const unsigned char* bytes, std::size_t have, std::uint64_t size);
void check_file(const char* path);

std::string text_of(const char* text, const char* otherwise = "");
// NULL is the model's own skeleton. Throws std::invalid_argument where it cannot be matched.
Person person_of(const rti_skeleton_desc* from);
SessionConfig config_of(const rti_session_desc& desc, const Retarget& reactor);

}  // namespace rti
