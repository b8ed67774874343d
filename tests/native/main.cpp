// Runs the tests named, or all; --list names them.
#include <cstring>

#include "check.h"

int main(int argc, char** argv) {
    if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
        for (const Test& test : tests()) std::puts(test.name);
        return 0;
    }
    int failed = 0, ran = 0;
    for (const Test& test : tests()) {
        bool wanted = argc == 1;
        for (int i = 1; i < argc; ++i) wanted = wanted || std::strcmp(argv[i], test.name) == 0;
        if (!wanted) continue;
        ++ran;
        try {
            test.run();
            std::printf("ok %s\n", test.name);
        } catch (const std::exception& error) {
            std::printf("FAILED %s: %s\n", test.name, error.what());
            ++failed;
        }
    }
    return failed || !ran;
}
