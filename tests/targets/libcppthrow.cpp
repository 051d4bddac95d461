#include <stdexcept>
#include <string>

extern "C" int cpp_throw(int n)
{
    std::string message = "thrown " + std::to_string(n);
    if (n % 2)
        throw std::runtime_error(message);
    return static_cast<int>(message.size());
}

extern "C" int cpp_inside(int n)
{
    try {
        return cpp_throw(n);
    } catch (const std::exception &error) {
        return -static_cast<int>(std::string(error.what()).size());
    }
}
