# Everything around what is built: manual pages, shell completion, the systemd units, the package configuration for
# pkg-config and CMake, and the Debian packages. The one CMakeLists.txt includes this file.
#
# An installed tree can be moved: nothing in it names its own place, except the units, which are written when they are
# installed and name the prefix given then. Packages are made from the same rules by cpack, see debian.cmake.
#
# Components, one Debian package each:  libparry  the shared library;  dev  header, static library, configuration;
# parry  the program with its policies, units and pages.

set(PACKAGING ${CMAKE_CURRENT_LIST_DIR})

# --- Manual pages: what --help and parry.h say -------------------------------------------------------------------------

set(PAGES ${CMAKE_CURRENT_BINARY_DIR}/man)
file(MAKE_DIRECTORY ${PAGES})
set(MAN_PAGES ${PAGES}/parry.h.3)
add_custom_command(OUTPUT ${PAGES}/parry.h.3
  COMMAND ${CMAKE_COMMAND} -D OUTPUT=${PAGES}/parry.h.3 -P ${PACKAGING}/page.cmake --
    ${LUA_PROGRAM} ${PROJECT_SOURCE_DIR}/core/include/manual.lua ${PROJECT_SOURCE_DIR}/core/include/parry.h
    ${PROJECT_VERSION} ${PARRY_RELEASED}
  DEPENDS core/include/manual.lua core/include/parry.h ${PACKAGING}/page.cmake VERBATIM)
install(FILES ${PAGES}/parry.h.3 DESTINATION ${CMAKE_INSTALL_MANDIR}/man3 COMPONENT dev)

# The program writes its own pages, so it must run here; a sanitized one is not what anybody installs.
if(TARGET parry AND NOT CMAKE_CROSSCOMPILING AND NOT SANITIZERS)
  file(READ core/cli/cli.h COMMAND_TABLE)
  string(REGEX MATCHALL "\n  X\\([a-z]+, \"" COMMAND_ROWS "${COMMAND_TABLE}")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS core/cli/cli.h)
  set(COMMAND_PAGES ${PAGES}/parry.1)
  add_custom_command(OUTPUT ${PAGES}/parry.1
    COMMAND ${CMAKE_COMMAND} -D OUTPUT=${PAGES}/parry.1 -P ${PACKAGING}/page.cmake -- $<TARGET_FILE:parry> help --man
    DEPENDS parry VERBATIM)
  foreach(ROW IN LISTS COMMAND_ROWS)
    string(REGEX MATCH "[a-z]+" NAME "${ROW}")
    set(PAGE ${PAGES}/parry-${NAME}.1)
    list(APPEND COMMAND_PAGES ${PAGE})
    add_custom_command(OUTPUT ${PAGE}
      COMMAND ${CMAKE_COMMAND} -D OUTPUT=${PAGE} -P ${PACKAGING}/page.cmake -- $<TARGET_FILE:parry> help --man ${NAME}
      DEPENDS parry VERBATIM)
  endforeach()
  list(APPEND MAN_PAGES ${COMMAND_PAGES})
  install(FILES ${COMMAND_PAGES} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT parry)
endif()
add_custom_target(manual ALL DEPENDS ${MAN_PAGES} COMMENT "Writing the manual pages")

# --- Configuration for programs that link libparry ----------------------------------------------------------------------

include(CMakePackageConfigHelpers)
set(CONFIG_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/parry)
set(PARRY_SONAME $<TARGET_SONAME_FILE_NAME:parry_shared>)
configure_package_config_file(${PACKAGING}/parry-config.cmake.in parry-config.cmake.in
  INSTALL_DESTINATION ${CONFIG_DIR} PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR
  NO_CHECK_REQUIRED_COMPONENTS_MACRO)
file(GENERATE OUTPUT parry-config.cmake INPUT ${CMAKE_CURRENT_BINARY_DIR}/parry-config.cmake.in)
write_basic_package_version_file(parry-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/parry-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/parry-config-version.cmake
  DESTINATION ${CONFIG_DIR} COMPONENT dev)

# --- The service -----------------------------------------------------------------------------------------------------------

install(FILES ${PACKAGING}/completion.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
  RENAME parry COMPONENT parry)
# A policy folder that somebody has edited stays as it is, whatever is installed over it.
install(CODE "
  set(PARRY_PREFIX \"\${CMAKE_INSTALL_PREFIX}\")
  cmake_path(ABSOLUTE_PATH PARRY_PREFIX NORMALIZE)
  set(BINDIR \"\${PARRY_PREFIX}/${CMAKE_INSTALL_BINDIR}\")
  set(SYSCONFDIR \"\${PARRY_PREFIX}/${CMAKE_INSTALL_SYSCONFDIR}\")
  if(PARRY_PREFIX STREQUAL \"/usr\")
    set(SYSCONFDIR /${CMAKE_INSTALL_SYSCONFDIR})
  endif()
  foreach(UNIT parry.service parry.socket)
    configure_file(${PACKAGING}/\${UNIT}.in \"\$ENV{DESTDIR}\${PARRY_PREFIX}/lib/systemd/system/\${UNIT}\" @ONLY)
    list(APPEND CMAKE_INSTALL_MANIFEST_FILES \"\${PARRY_PREFIX}/lib/systemd/system/\${UNIT}\")
  endforeach()
  if(NOT EXISTS \"\$ENV{DESTDIR}\${SYSCONFDIR}/parry/policies/init.lua\")
    file(INSTALL ${PACKAGING}/init.lua DESTINATION \"\${SYSCONFDIR}/parry/policies\")
  endif()" COMPONENT parry)

# --- Debian packages -------------------------------------------------------------------------------------------------------

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME parry)
set(CPACK_PACKAGE_CONTACT "parry maintainers <maintainers@parry.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "") # cpack would put it before the first line of each description below
set(CPACK_COMPONENTS_ALL libparry dev parry)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PRE_BUILD_SCRIPTS ${PACKAGING}/debian.cmake)
set(CPACK_PARRY_LICENSE_NOTE ${PACKAGING}/copyright)
set(CPACK_PARRY_RELEASED ${PARRY_RELEASED})
set(CPACK_PARRY_LIBDIR ${CMAKE_INSTALL_LIBDIR})

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

# Debian Policy 8.1: the name has the version of the SONAME.
set(CPACK_PARRY_LIBRARY libparry${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
set(CPACK_DEBIAN_LIBPARRY_PACKAGE_NAME ${CPACK_PARRY_LIBRARY})
set(CPACK_DEBIAN_LIBPARRY_PACKAGE_SECTION libs)
file(CONFIGURE OUTPUT deb/shlibs @ONLY CONTENT
  "libparry @PROJECT_VERSION_MAJOR@.@PROJECT_VERSION_MINOR@ @CPACK_PARRY_LIBRARY@ (>= @PROJECT_VERSION@)\n")
file(CONFIGURE OUTPUT deb/triggers CONTENT "activate-noawait ldconfig\n")
set(CPACK_DEBIAN_LIBPARRY_PACKAGE_CONTROL_EXTRA
  ${CMAKE_CURRENT_BINARY_DIR}/deb/shlibs ${CMAKE_CURRENT_BINARY_DIR}/deb/triggers)
# parry has the policies, dialects and libraries that a host's own init.lua uses.
set(CPACK_DEBIAN_LIBPARRY_PACKAGE_RECOMMENDS "parry, ca-certificates")
set(CPACK_DEBIAN_LIBPARRY_DESCRIPTION "scriptable policies for failing API calls (shared library)
The engine of parry as a library: when a call of the host application fails,
policies in Lua, which can be edited while it runs, decide what happens next:
retry, wait, another target, a new token, or an answer of their own.")
set(CPACK_DEBIAN_DEV_PACKAGE_NAME libparry-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
# Those of libparry.a, which pkg-config wants to see in any case (Requires.private).
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "${CPACK_PARRY_LIBRARY} (= ${PROJECT_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE}), \
liblua5.4-dev, libcurl4-openssl-dev | libcurl-dev, libevent-dev, libssl-dev, zlib1g-dev")
set(CPACK_DEBIAN_DEV_DESCRIPTION "scriptable policies for failing API calls (development files)
Header, static library, and the configuration for pkg-config and CMake of
libparry, with which an application runs parry's policies by itself.")
set(CPACK_DEBIAN_PARRY_PACKAGE_NAME parry)
set(CPACK_DEBIAN_PARRY_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PARRY_PACKAGE_RECOMMENDS ca-certificates)
set(CPACK_DEBIAN_PARRY_PACKAGE_CONTROL_EXTRA
  ${PACKAGING}/conffiles ${PACKAGING}/postinst ${PACKAGING}/prerm ${PACKAGING}/postrm)
set(CPACK_DEBIAN_PARRY_DESCRIPTION "gateway for LLM APIs whose handling of failures is scripted
parry stands in front of the providers of LLM APIs. When a call fails,
policies in Lua decide what happens next: retry, wait, another provider, a
new token, or an answer of their own. They can be edited while it runs; a
broken edit is refused with file and line, and what served before goes on
serving.

This package has the program, the policies that come with it, and units for
systemd. Its command demo shows it at work and needs no key.")
include(CPack)
