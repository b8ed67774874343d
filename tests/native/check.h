// A test is a function with a name; the first check that fails ends it and says where.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

struct Test {
    const char* name;
    void (*run)();
};

inline std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

struct Registered {
    Registered(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

#define TEST(name)                                         \
    static void name();                                    \
    static const Registered registered_##name(#name, name); \
    static void name()

#define CHECK(condition)                                                                                          \
    do {                                                                                                          \
        if (!(condition)) throw std::runtime_error(std::string(__FILE__) + ":" + std::to_string(__LINE__) + ": " #condition); \
    } while (0)

// With both values in the message; they must be numbers.
#define CHECK_AT_MOST(value, bound)                                                                              \
    do {                                                                                                         \
        const double value_ = static_cast<double>(value), bound_ = static_cast<double>(bound);                   \
        if (!(value_ <= bound_))                                                                                 \
            throw std::runtime_error(std::string(__FILE__) + ":" + std::to_string(__LINE__) + ": " #value " = " + \
                                     std::to_string(value_) + ", more than " #bound " = " + std::to_string(bound_)); \
    } while (0)
