/* Opens a socket of each family that is named, as programs do and as 32-bit programs may; says how that ended. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static void say(const char *how, const char *family, long result, int error)
{
    printf("%s %s: %s\n", how, family, result < 0 ? strerrorname_np(error) : "done");
}

int main(int count, char **families)
{
    for (int each = 1; each < count; each++) {
        int descriptor = socket(atoi(families[each]), SOCK_STREAM, 0);
        if (descriptor < 0 && (errno == ESOCKTNOSUPPORT || errno == EPROTOTYPE || errno == EPROTONOSUPPORT))
            descriptor = socket(atoi(families[each]), SOCK_RAW, 0);
        say("socket", families[each], descriptor, errno);
#if defined(__x86_64__) && defined(MAP_32BIT)
        /* socketcall(SYS_SOCKET, arguments) by the gate of 32-bit programs: the arguments lie below 4 GiB. */
        unsigned *arguments = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        arguments[0] = (unsigned)atoi(families[each]);
        arguments[1] = SOCK_STREAM;
        arguments[2] = 0;
        long result = 102;
        __asm__ volatile("int $0x80" : "+a"(result) : "b"(1L), "c"(arguments) : "memory", "r8", "r9", "r10", "r11");
        say("socketcall", families[each], result, (int)-result);
#endif
    }
    return 0;
}
