// cppthrow: exceptions that leave a split function, and some that do not.
#include "target.h"
#include <stdexcept>

extern "C" int cpp_throw(int n);
extern "C" int cpp_inside(int n);

struct Witness {
    int n;
    ~Witness() { printf("destroyed %d\n", n); }
};

static int guarded(int n)
{
    Witness witness{n};
    return cpp_throw(n);
}

int main()
{
    ready();
    for (int n = 0; n < 8; n++) {
        try {
            printf("returned %d\n", guarded(n));
        } catch (const std::runtime_error &error) {
            printf("caught %s\n", error.what());
        }
        printf("inside %d\n", cpp_inside(n));
    }
    return success();
}
